//! A certificate is public: who presents it must own its private key.

use super::*;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// Presents a certificate and signs with a key, whether they belong together or not.
#[derive(Debug)]
struct Presented(Arc<CertifiedKey>);

impl Presented {
    fn new(certificate: &TlsIdentity, key: &TlsIdentity) -> Arc<Self> {
        let key = rustls::crypto::ring::sign::any_supported_type(&key.key()).unwrap();
        Arc::new(Self(Arc::new(CertifiedKey::new(vec![certificate.certificate()], key))))
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The results of a handshake, at the client and at the server.
async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (bool, bool) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let (client, server) =
        tokio::join!(connect(stream, client, HANDSHAKE_TIMEOUT), accept(accepted, server, HANDSHAKE_TIMEOUT));
    (client.is_ok(), server.is_ok())
}

#[tokio::test]
async fn a_server_without_the_private_key_of_its_certificate_is_refused() {
    let [node, peer, thief] = ["node", "peer", "thief"].map(|name| TlsIdentity::generate(name).unwrap());
    for trust in [Trust::Pinned(peer.fingerprint()), Trust::AnyKey] {
        for (key, accepted) in [(&peer, true), (&thief, false)] {
            let mut server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_client_cert_verifier(Arc::new(verify::PinVerifier::new(Trust::AnyKey, &provider())))
                .with_cert_resolver(Presented::new(&peer, key));
            server.alpn_protocols = vec![Protocol::Peer.alpn().to_vec()];
            let client = client_config(&node, trust, Protocol::Peer).unwrap();
            assert_eq!(handshake(client, Arc::new(server)).await.0, accepted, "{trust:?}");
        }
    }
}

#[tokio::test]
async fn a_client_without_the_private_key_of_its_certificate_is_refused() {
    let [node, peer, thief] = ["node", "peer", "thief"].map(|name| TlsIdentity::generate(name).unwrap());
    for trust in [Trust::Pinned(peer.fingerprint()), Trust::AnyKey] {
        for (key, accepted) in [(&peer, true), (&thief, false)] {
            let mut client = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verify::PinVerifier::new(Trust::AnyKey, &provider())))
                .with_client_cert_resolver(Presented::new(&peer, key));
            client.alpn_protocols = vec![Protocol::Peer.alpn().to_vec()];
            let server = server_config(&node, trust, &[Protocol::Peer]).unwrap();
            assert_eq!(handshake(Arc::new(client), server).await.1, accepted, "{trust:?}");
        }
    }
}
