//! The node's certificate for HTTPS: self-signed, made at the first start, kept in the state directory.

use std::{fs, path::Path, sync::Arc};

use anyhow::Context;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

const CERTIFICATE: &str = "web-certificate.der";
const KEY: &str = "web-key.der";

/// The TLS configuration with the certificate in `state`. Makes key and certificate if either file cannot be read.
///
/// # Errors
/// The directory cannot be written, or the key is damaged.
pub fn server_config(state: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let (certificate, key) = match (fs::read(state.join(CERTIFICATE)), fs::read(state.join(KEY))) {
        (Ok(certificate), Ok(key)) => (certificate, key),
        _ => make(state).context("the certificate for HTTPS cannot be made")?,
    };
    let chain = vec![CertificateDer::from(certificate)];
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key).into())
        .context("the key for HTTPS is damaged: remove it and the certificate to get new ones")?;
    // WebSockets need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn make(state: &Path) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec!["dyad".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Dyad node");
    let certificate = params.self_signed(&key)?.der().to_vec();
    let key = key.serialize_der();
    fs::create_dir_all(state)?;
    // The key is written first: a certificate on disk always has its key.
    dyad_atomic_file::replace(&state.join(KEY), &key)?;
    dyad_atomic_file::replace(&state.join(CERTIFICATE), &certificate)?;
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_made_once() {
        let state = tempfile::tempdir().unwrap();
        server_config(state.path()).unwrap();
        let first = fs::read(state.path().join(CERTIFICATE)).unwrap();
        server_config(state.path()).unwrap();
        assert_eq!(fs::read(state.path().join(CERTIFICATE)).unwrap(), first);
        fs::write(state.path().join(KEY), b"noise").unwrap();
        assert!(server_config(state.path()).is_err());
    }
}
