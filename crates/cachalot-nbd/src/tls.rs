//! Encryption: TLS 1.3, which a client asks for with `STARTTLS` and which nobody gets by without once it is offered.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, version};

/// What a server proves itself with, and whom it lets in.
#[derive(Clone)]
pub struct Tls(pub(crate) TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// Why certificates or a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What should be PEM is not, or holds nothing of the kind.
    #[error("{what} can't be read: {source}")]
    Pem {
        /// Which of them.
        what: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// There is no certificate among them.
    #[error("there is no certificate in {what}")]
    NoCertificate {
        /// Which of them.
        what: &'static str,
    },
    /// The certificate and the key do not go together, or are of a kind that is not supported.
    #[error("the certificate or the key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// Clients can't be checked against these.
    #[error("clients can't be checked: {0}")]
    Clients(#[from] VerifierBuilderError),
}

fn certificates(text: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|source| TlsError::Pem { what, source })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { what });
    }
    Ok(found)
}

impl Tls {
    /// From texts in PEM: the server's certificates, its own first; its private key; and, where only clients may come that
    /// show a certificate, those of the authorities that must have signed it.
    ///
    /// # Errors
    /// [`TlsError`] says which of them is wrong and how.
    pub fn from_pem(
        certificate: &[u8],
        key: &[u8],
        authorities: Option<&[u8]>,
    ) -> Result<Self, TlsError> {
        let chain = certificates(certificate, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem {
            what: "the key",
            source,
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(text) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(text, "the authorities of clients")? {
                    roots.add(authority)?;
                }
                let clients =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(clients.build()?)
            }
        };
        let config = builder.with_single_cert(chain, key)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}
