//! Real TLS over loopback: who is let in, who is not, and what they are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ballast_link::{
    Authority, ClientAuth, Credentials, Identity, JoinToken, KeyPair, Link, LinkError, Peer, Role,
    Trust, alpn, token,
};
use ballast_model::{ClusterId, Health, Sequence, Timestamp};
use ballast_wire::feed::{AgentToIngress, EndpointHealth, IngressToAgent};
use ballast_wire::join::{JoinRequest, JoinResponse, JoinRole};
use tokio::net::TcpListener;

const DAY: Duration = Duration::from_hours(24);

fn authority() -> Authority {
    Authority::generate(ClusterId::from_bits(1), SystemTime::now()).expect("makes a CA")
}

fn member(ca: &Authority, role: Role, id: u64) -> Credentials {
    issued(ca, role, id, DAY, SystemTime::now())
}

fn issued(ca: &Authority, role: Role, id: u64, life: Duration, now: SystemTime) -> Credentials {
    let key = KeyPair::generate().expect("makes a key");
    let identity = Identity {
        cluster: ClusterId::from_bits(1),
        role,
        id,
    };
    let request = key.signing_request().expect("signs");
    let chain = ca.issue(&request, identity, life, now).expect("issues");
    key.into_credentials(chain).expect("fits its key")
}

struct Listener {
    address: SocketAddr,
    outcome: tokio::task::JoinHandle<Result<Option<Identity>, LinkError>>,
}

/// Accepts one connection, reads one message from it and answers one.
async fn listen(credentials: Credentials, auth: ClientAuth) -> Listener {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let trust = Trust::new(credentials).expect("is usable");
    let outcome = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let accepted = trust
            .accept(stream, &[alpn::FEED, alpn::JOIN], auth)
            .await?;
        let Some(identity) = accepted.identity else {
            return Ok(None);
        };
        let mut link = Link::<IngressToAgent, AgentToIngress>::new(accepted.stream, identity);
        link.receiver.recv().await?;
        link.sender.send(&IngressToAgent::Welcome).await?;
        Ok(Some(identity))
    });
    Listener { address, outcome }
}

/// Calls, sends one message and reads one.
async fn call(credentials: Credentials, peer: Peer) -> Result<Option<IngressToAgent>, LinkError> {
    let trust = Trust::new(credentials).expect("is usable");
    let (stream, identity) = trust.connect(peer, alpn::FEED).await?;
    let mut link = Link::<AgentToIngress, IngressToAgent>::new(stream, identity);
    let change = EndpointHealth {
        assignment: ballast_model::AssignmentId::from_bits(3),
        sequence: Sequence(1),
        health: Health::Healthy,
        seen: Timestamp(0),
    };
    link.sender.send(&AgentToIngress::Change(change)).await?;
    link.receiver.recv().await
}

fn ingress(listener: &Listener, id: Option<u64>) -> Peer {
    Peer {
        address: listener.address,
        role: Role::Ingress,
        id,
    }
}

#[tokio::test]
async fn members_of_one_cluster_prove_who_they_are_and_talk() {
    let ca = authority();
    let listener = listen(member(&ca, Role::Ingress, 9), ClientAuth::Required).await;
    let answer = call(member(&ca, Role::Agent, 7), ingress(&listener, Some(9))).await;
    assert_eq!(answer.expect("answers"), Some(IngressToAgent::Welcome));
    let seen = listener
        .outcome
        .await
        .expect("ran")
        .expect("accepted")
        .expect("has a name");
    assert_eq!((seen.role, seen.id), (Role::Agent, 7));
}

#[tokio::test]
async fn member_of_another_ca_is_refused_on_both_sides() {
    let listener = listen(member(&authority(), Role::Ingress, 9), ClientAuth::Required).await;
    let error = call(
        member(&authority(), Role::Agent, 7),
        ingress(&listener, None),
    )
    .await;
    let error = error.expect_err("refuses").to_string();
    assert!(error.contains("another CA"), "{error}");
    listener
        .outcome
        .await
        .expect("ran")
        .expect_err("refused too");
}

#[tokio::test]
async fn agent_that_claims_to_be_an_ingress_is_not_believed() {
    let ca = authority();
    let listener = listen(member(&ca, Role::Agent, 9), ClientAuth::Required).await;
    let error = call(member(&ca, Role::Agent, 7), ingress(&listener, None)).await;
    assert!(
        error
            .expect_err("refuses")
            .to_string()
            .contains("another role")
    );
}

#[tokio::test]
async fn another_ingress_than_the_one_called_is_not_believed() {
    let ca = authority();
    let listener = listen(member(&ca, Role::Ingress, 8), ClientAuth::Required).await;
    let error = call(member(&ca, Role::Agent, 7), ingress(&listener, Some(9))).await;
    assert!(matches!(error, Err(LinkError::WrongPeer { .. })));
}

#[tokio::test]
async fn expired_certificate_is_refused_and_the_caller_told_so() {
    let ca = authority();
    let listener = listen(member(&ca, Role::Ingress, 9), ClientAuth::Required).await;
    let expired = issued(&ca, Role::Agent, 7, DAY, SystemTime::now() - 3 * DAY);
    let error = call(expired, ingress(&listener, None))
        .await
        .expect_err("refuses")
        .to_string();
    assert!(
        error.contains("our certificate") && error.contains("expired"),
        "{error}"
    );
    let seen = listener
        .outcome
        .await
        .expect("ran")
        .expect_err("refused")
        .to_string();
    assert!(seen.contains("expired"), "{seen}");
}

#[tokio::test]
async fn caller_without_certificate_may_join_and_nothing_else() {
    let ca = authority();
    let pinned = JoinToken {
        role: JoinRole::Agent,
        ca_digest: token::ca_digest(ca.certificate()),
        secret: "secret".to_owned(),
        manager: None,
    };
    let listener = listen(member(&ca, Role::Manager, 1), ClientAuth::JoinersMayCall).await;
    let error = ballast_link::join::join(listener.address, &pinned, "n1").await;
    // The listener of this test hangs up on joiners; what matters is that it let them speak.
    assert!(
        matches!(error, Err(LinkError::Refused(_) | LinkError::Io(_))),
        "{error:?}"
    );
    assert!(matches!(listener.outcome.await, Ok(Ok(None))));
}

/// Answers one join as a manager would.
async fn serve_join(ca: Arc<Authority>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    let trust = Trust::new(member(&ca, Role::Manager, 1)).expect("is usable");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        let accepted = trust
            .accept(stream, &[alpn::JOIN], ClientAuth::JoinersMayCall)
            .await
            .expect("accepts");
        let (reader, writer) = tokio::io::split(accepted.stream);
        let mut requests = ballast_link::LinkReceiver::<JoinRequest>::new(reader);
        let request = requests.recv().await.expect("reads").expect("asks");
        let cluster = ClusterId::from_bits(1);
        let answer = if request.secret == "secret" {
            let identity = Identity {
                cluster,
                role: Role::Agent,
                id: 42,
            };
            let chain = ca
                .issue(&request.csr, identity, DAY, SystemTime::now())
                .expect("issues");
            JoinResponse::Accepted {
                id: 42,
                cluster,
                chain,
            }
        } else {
            JoinResponse::Refused("the token's secret is wrong".to_owned())
        };
        ballast_link::LinkSender::new(writer)
            .send(&answer)
            .await
            .expect("answers");
        // Keeps the connection until the joiner has read.
        let _ = requests.recv().await;
    });
    address
}

#[tokio::test]
async fn joiner_with_the_right_token_gets_a_certificate_that_survives_the_disk() {
    let ca = Arc::new(authority());
    let token = JoinToken {
        role: JoinRole::Agent,
        ca_digest: token::ca_digest(ca.certificate()),
        secret: "secret".to_owned(),
        manager: None,
    };
    let address = serve_join(ca.clone()).await;
    let credentials = ballast_link::join::join(address, &token, "n1")
        .await
        .expect("joins");
    assert_eq!(credentials.identity.id, 42);
    let dir = tempfile::tempdir().expect("makes a folder");
    assert!(Credentials::load(dir.path()).expect("reads").is_none());
    credentials.store(dir.path()).expect("stores");
    let loaded = Credentials::load(dir.path())
        .expect("reads")
        .expect("is there");
    assert_eq!(loaded.identity, credentials.identity);
    assert!(loaded.renewal_due() < loaded.not_after && loaded.not_before < loaded.renewal_due());
    let listener = listen(member(&ca, Role::Ingress, 9), ClientAuth::Required).await;
    call(loaded, ingress(&listener, None))
        .await
        .expect("is believed");
}

#[tokio::test]
async fn joiner_with_a_wrong_secret_or_a_wrong_digest_is_refused() {
    let ca = Arc::new(authority());
    let mut token = JoinToken {
        role: JoinRole::Agent,
        ca_digest: token::ca_digest(ca.certificate()),
        secret: "guess".to_owned(),
        manager: None,
    };
    let address = serve_join(ca.clone()).await;
    let error = ballast_link::join::join(address, &token, "n1")
        .await
        .expect_err("refuses");
    assert!(
        matches!(&error, LinkError::Refused(reason) if reason.contains("secret")),
        "{error}"
    );
    token.ca_digest = [0; 32];
    let address = serve_join(ca).await;
    let error = ballast_link::join::join(address, &token, "n1")
        .await
        .expect_err("refuses");
    assert!(error.to_string().contains("another CA"), "{error}");
}

#[tokio::test]
async fn broken_files_are_named_and_not_taken_for_none() {
    let dir = tempfile::tempdir().expect("makes a folder");
    std::fs::write(dir.path().join("key.pem"), "garbage").expect("writes");
    let error = Credentials::load(dir.path())
        .expect_err("refuses")
        .to_string();
    assert!(error.contains("key.pem"), "{error}");
}

#[tokio::test]
async fn renewal_is_used_from_the_next_connection_on_and_only_for_the_same_member() {
    let ca = authority();
    let expired = issued(&ca, Role::Agent, 7, DAY, SystemTime::now() - 3 * DAY);
    let trust = Trust::new(expired).expect("is usable");
    trust
        .renew(member(&ca, Role::Agent, 8))
        .expect_err("another member's");
    trust
        .renew(member(&ca, Role::Agent, 7))
        .expect("is its own");
    let listener = listen(member(&ca, Role::Ingress, 9), ClientAuth::Required).await;
    call(trust.credentials(), ingress(&listener, None))
        .await
        .expect("is believed");
}
