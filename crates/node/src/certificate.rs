//! The node's self-signed certificate for HTTPS. It is generated at the first start and stored in the state directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};

const CERTIFICATE_FILE: &str = "web-certificate.der";
const KEY_FILE: &str = "web-key.der";

/// The reason why HTTPS has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key or the certificate cannot be generated.
    #[error("the certificate for HTTPS cannot be generated")]
    Generate(#[from] rcgen::Error),
    /// A file or the directory for them cannot be written.
    #[error("the certificate for HTTPS cannot be stored: {} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The TLS library does not support the default protocol versions.
    #[error("HTTPS cannot be configured")]
    Versions(#[source] rustls::Error),
    /// The stored key is unreadable or belongs to another certificate.
    #[error("the key for HTTPS is damaged: remove it and the certificate to get new ones")]
    Damaged { key: PathBuf, source: rustls::Error },
}

/// The TLS configuration with the key and the certificate in the directory `state`. Generates and stores new ones if either
/// file cannot be read.
///
/// # Errors
/// The directory cannot be written, or the key is damaged.
pub fn server_config(state: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let (certificate, key) = match (fs::read(state.join(CERTIFICATE_FILE)), fs::read(state.join(KEY_FILE))) {
        (Ok(certificate), Ok(key)) => (certificate, key),
        _ => generate(state)?,
    };
    let chain = vec![CertificateDer::from(certificate)];
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Versions)?
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key).into())
        .map_err(|source| CertificateError::Damaged { key: state.join(KEY_FILE), source })?;
    // HTTP/2 is not offered: the serial line needs a WebSocket over HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Generates a key and a certificate, and stores both.
fn generate(state: &Path) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec!["dyad".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Dyad node");
    let certificate = params.self_signed(&key)?.der().to_vec();
    let key = key.serialize_der();
    fs::create_dir_all(state).map_err(|source| CertificateError::Write { path: state.to_owned(), source })?;
    // The key is written first, so that a stored certificate always has its key.
    for (name, bytes) in [(KEY_FILE, &key), (CERTIFICATE_FILE, &certificate)] {
        let path = state.join(name);
        dyad_atomic_file::replace(&path, bytes).map_err(|source| CertificateError::Write { path, source })?;
    }
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_generated_once_and_a_damaged_key_is_refused() {
        let state = tempfile::tempdir().unwrap();
        server_config(state.path()).unwrap();
        let first = fs::read(state.path().join(CERTIFICATE_FILE)).unwrap();
        server_config(state.path()).unwrap();
        assert_eq!(fs::read(state.path().join(CERTIFICATE_FILE)).unwrap(), first);
        fs::write(state.path().join(KEY_FILE), b"noise").unwrap();
        assert!(server_config(state.path()).is_err());
    }
}
