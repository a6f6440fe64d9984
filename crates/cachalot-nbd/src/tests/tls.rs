//! Encrypted conversations.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

/// An authority, and what it signed: certificate and key in PEM.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let signed = params.signed_by(&key, &self.0).unwrap();
        (signed.pem(), key.serialize_pem())
    }
}

fn server(authority: &Authority, clients: Option<&Authority>) -> Tls {
    let (certificate, key) = authority.sign("disk.example");
    let clients = clients.map(Authority::pem);
    let clients = clients.as_deref().map(str::as_bytes);
    Tls::from_pem(certificate.as_bytes(), key.as_bytes(), clients).unwrap()
}

fn connector(trusted: &Authority, own: Option<(String, String)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(trusted.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

fn ram() -> Ram {
    Ram {
        bytes: Mutex::new(vec![0; SIZE]),
        is_read_only: false,
        flushes: None,
    }
}

/// The client's part up to encryption, with an option before it that is refused.
async fn ask_for_tls(client: &mut DuplexStream) {
    let mut hello = BytesMut::new();
    hello.put_u32(3);
    hello.put_slice(&wire::option_bytes(option::LIST, b""));
    hello.put_slice(&wire::option_bytes(option::STARTTLS, b""));
    client.write_all(&hello).await.unwrap();
    let mut greeting = [0; 18];
    client.read_exact(&mut greeting).await.unwrap();
    let mut refused = [0; 20];
    client.read_exact(&mut refused).await.unwrap();
    assert_eq!(refused[12..16], answer::ERR_TLS_REQD.to_be_bytes());
    wait_for_ack(client).await;
}

/// Connects, writes and reads. The error of a client that was not let in.
async fn use_disk(mut client: DuplexStream, connector: TlsConnector) -> std::io::Result<u32> {
    ask_for_tls(&mut client).await;
    let name = ServerName::try_from("disk.example").unwrap();
    let mut client = connector.connect(name, client).await?;
    client.write_all(&go()[4..]).await?;
    let mut head = [0; 1];
    // In TLS 1.3 a client learns that its certificate was refused when it reads.
    client.read_exact(&mut head).await?;
    let mut rest = [0; 19];
    client.read_exact(&mut rest).await?;
    let len = u32::from_be_bytes(rest[15..].try_into().unwrap());
    client.read_exact(&mut vec![0; len as usize]).await?;
    wait_for_ack(&mut client).await;
    let mut write = BytesMut::from(&ask(command::WRITE, 0, 5, 10_000)[..]);
    write.put_slice(&[9; 10_000]);
    assert_eq!(error_of(&mut client, &write).await, 0);
    let read = ask(command::READ, 0, 5, 10_000);
    let error = error_of(&mut client, &read).await;
    let mut found = vec![1; 10_000];
    client.read_exact(&mut found).await?;
    assert!(found == [9; 10_000]);
    client.write_all(&ask(command::DISC, 0, 0, 0)).await?;
    client.flush().await?;
    Ok(error)
}

#[tokio::test]
async fn an_encrypted_client_reads_what_it_wrote() {
    let authority = Authority::new();
    let tls = server(&authority, None);
    let (client, served, _stop) = start_with(ram(), &Room::new(0), Some(tls));
    let (ended, used) = talk(served, use_disk(client, connector(&authority, None))).await;
    ended.unwrap();
    assert_eq!(used.unwrap(), 0);
}

#[tokio::test]
async fn nobody_gets_further_without_encryption_where_it_is_offered() {
    let authority = Authority::new();
    let tls = server(&authority, None);
    let (mut client, served, _stop) = start_with(ram(), &Room::new(0), Some(tls));
    let (ended, ()) = talk(served, async move {
        client.write_all(&go()).await.unwrap();
        let mut greeting = [0; 18];
        client.read_exact(&mut greeting).await.unwrap();
        let mut refused = [0; 20];
        client.read_exact(&mut refused).await.unwrap();
        assert_eq!(refused[12..16], answer::ERR_TLS_REQD.to_be_bytes());
        let by_name = wire::option_bytes(option::EXPORT_NAME, b"disk");
        client.write_all(&by_name).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
    assert!(
        matches!(ended, Err(ConnectionError::Garbage(_))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_right_authority_are_let_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (own, is_let_in) in [
        (Some(authority.sign("client")), true),
        (Some(other.sign("client")), false),
        (None, false),
    ] {
        let tls = server(&authority, Some(&authority));
        let (client, served, _stop) = start_with(ram(), &Room::new(0), Some(tls));
        let (ended, used) = talk(served, use_disk(client, connector(&authority, own))).await;
        if is_let_in {
            ended.unwrap();
            assert_eq!(used.unwrap(), 0);
        } else {
            assert!(matches!(ended, Err(ConnectionError::Tls(_))), "{ended:?}");
            used.unwrap_err();
        }
    }
}

#[tokio::test]
async fn encryption_is_asked_for_in_vain_where_there_is_none() {
    let (mut client, served, _stop) = start(false);
    let (ended, ()) = talk(served, async move {
        let mut hello = BytesMut::new();
        hello.put_u32(3);
        hello.put_slice(&wire::option_bytes(option::STARTTLS, b""));
        hello.put_slice(&wire::option_bytes(option::ABORT, b""));
        client.write_all(&hello).await.unwrap();
        let mut greeting = [0; 18];
        client.read_exact(&mut greeting).await.unwrap();
        let mut refused = [0; 20];
        client.read_exact(&mut refused).await.unwrap();
        assert_eq!(refused[12..16], answer::ERR_UNSUP.to_be_bytes());
        wait_for_ack(&mut client).await;
    })
    .await;
    ended.unwrap();
}

#[test]
fn what_is_no_certificate_is_told() {
    let (certificate, key) = Authority::new().sign("disk.example");
    let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
    let of = |certificate, key, clients| Tls::from_pem(certificate, key, clients).unwrap_err();
    assert!(matches!(
        of(b"", key, None),
        TlsError::NoCertificate {
            what: "the certificate"
        }
    ));
    assert!(matches!(of(certificate, b"x", None), TlsError::Pem { .. }));
    let (_, others) = Authority::new().sign("disk.example");
    assert!(matches!(
        of(certificate, others.as_bytes(), None),
        TlsError::Unusable(_)
    ));
    assert!(matches!(
        of(certificate, key, Some(b"")),
        TlsError::NoCertificate { .. }
    ));
}
