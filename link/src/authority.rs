//! The cluster's certificate authority: made once by the first manager, kept in replicated state.

use std::time::{Duration, SystemTime};

use ballast_model::ClusterId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

use crate::{Identity, LinkError, Role};

/// How long the CA's certificate is valid: as long as a cluster may live.
const CA_LIFETIME: Duration = Duration::from_hours(20 * 365 * 24);

/// Subtracted from the start of a certificate's life, so that a member whose clock is slow can use
/// it at once; never more than a tenth of that life, so that short lives keep their meaning.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// The CA of a cluster: signs members' certificates.
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl std::fmt::Debug for Authority {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn failed(error: impl std::fmt::Display) -> LinkError {
    LinkError::Certificate(error.to_string())
}

impl Authority {
    /// Makes a new CA for a cluster.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate(cluster: ClusterId, now: SystemTime) -> Result<Self, LinkError> {
        let key = rcgen::KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("Ballast cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + CA_LIFETIME).into();
        let certificate = params.self_signed(&key).map_err(failed)?;
        Self::from_der(certificate.der().to_vec(), key.serialize_der())
    }

    /// Reads a CA back from its certificate and its key (PKCS #8), both DER.
    ///
    /// # Errors
    /// If they are not such.
    pub fn from_der(certificate: Vec<u8>, key: Vec<u8>) -> Result<Self, LinkError> {
        let certificate = CertificateDer::from(certificate);
        let der = PrivatePkcs8KeyDer::from(key.as_slice());
        let pair =
            rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(failed)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair).map_err(failed)?;
        Ok(Self {
            certificate,
            key,
            issuer,
        })
    }

    /// Returns the CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Returns the CA's key (PKCS #8, DER): for the replicated state only.
    pub fn key_der(&self) -> &[u8] {
        &self.key
    }

    /// Signs a certificate that names `identity` for the public key of a signing request (PKCS
    /// #10, DER), of which nothing else is used. Returns the chain, leaf first.
    ///
    /// # Errors
    /// If the request is not one, or is not signed with its own key.
    pub fn issue(
        &self,
        request: &[u8],
        identity: Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, LinkError> {
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request).map_err(failed)?;
        self.sign(&request.public_key, identity, lifetime, now)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<Vec<u8>>, LinkError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&identity.to_string());
        params.not_before = (now - CLOCK_SKEW.min(lifetime / 10)).into();
        params.not_after = (now + lifetime).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let name = |text: &str| Ia5String::try_from(text.to_owned()).map_err(failed);
        params.subject_alt_names = vec![
            SanType::URI(name(&identity.to_uri())?),
            SanType::DnsName(name(identity.role.dns_name())?),
        ];
        // A client of the API serves nothing.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if identity.role != Role::Client {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let leaf = params.signed_by(key, &self.issuer).map_err(failed)?;
        Ok(vec![leaf.der().to_vec(), self.certificate.to_vec()])
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
