//! One certificate, from the order to the chain.

use std::sync::Arc;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewOrder,
    OrderStatus, RetryPolicy,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::{AcmeError, Challenges, Proof};
use crate::tls::Store;

/// Where proofs are put.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// For those over HTTP.
    pub challenges: &'a Challenges,
    /// For those by a certificate.
    pub store: &'a Store,
}

/// What was put there for one order.
enum Put {
    Token(String),
    Name(String),
}

/// Orders a certificate for a host, and returns its key and its chain as PEM.
///
/// # Errors
/// [`AcmeError`]; what was put up as proof is taken down in any case.
pub async fn order(
    account: &Account,
    host: &str,
    proof: Proof,
    places: Places<'_>,
) -> Result<(String, String), AcmeError> {
    let mut put = Vec::new();
    let issued = run(account, host, proof, places, &mut put).await;
    for put in put {
        match put {
            Put::Token(token) => places.challenges.remove(&token),
            Put::Name(name) => places.store.remove_challenge(&name),
        }
    }
    issued
}

async fn run(
    account: &Account,
    host: &str,
    proof: Proof,
    places: Places<'_>,
    put: &mut Vec<Put>,
) -> Result<(String, String), AcmeError> {
    let kind = match proof {
        Proof::Http => ChallengeType::Http01,
        Proof::TlsAlpn => ChallengeType::TlsAlpn01,
    };
    let identifiers = [Identifier::Dns(host.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(kind.clone());
        let mut challenge = challenge.ok_or(AcmeError::NoChallenge)?;
        put.push(put_up(host, proof, places, &challenge)?);
        challenge.set_ready().await?;
    }
    let status = order.poll_ready(&RetryPolicy::default()).await?;
    if status != OrderStatus::Ready {
        return Err(AcmeError::NotConvinced(reason(&mut order).await));
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&RetryPolicy::default()).await?;
    Ok((key, chain))
}

fn put_up(
    host: &str,
    proof: Proof,
    places: Places<'_>,
    challenge: &ChallengeHandle<'_>,
) -> Result<Put, AcmeError> {
    let authorization = challenge.key_authorization();
    match proof {
        Proof::Http => {
            places
                .challenges
                .insert(&challenge.token, authorization.as_str());
            Ok(Put::Token(challenge.token.clone()))
        }
        Proof::TlsAlpn => {
            let key = rcgen::KeyPair::generate()?;
            let mut params = rcgen::CertificateParams::new(vec![host.to_owned()])?;
            let digest = authorization.digest();
            let extension = rcgen::CustomExtension::new_acme_identifier(digest.as_ref());
            params.custom_extensions.push(extension);
            let chain = vec![params.self_signed(&key)?.der().clone()];
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            let key = default_provider().key_provider.load_private_key(key);
            let key = key.map_err(crate::tls::TlsError::from)?;
            // Not proved to fit the key: the verifier that would do it refuses any certificate with
            // a critical extension that it does not know, which is what makes this one a proof.
            let certified = CertifiedKey::new(chain, key);
            places.store.set_challenge(host, Arc::new(certified));
            Ok(Put::Name(host.to_owned()))
        }
    }
}

/// Returns what the server says of the proofs that did not convince it.
async fn reason(order: &mut instant_acme::Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(authorization)) = authorizations.next().await {
        let challenges = authorization.challenges.iter();
        let errors = challenges.filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(ToString::to_string));
    }
    reasons.join("; ")
}
