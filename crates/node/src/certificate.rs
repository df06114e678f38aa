//! The node's certificate for HTTPS: self-signed, made at the first start, kept in the state directory.

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

const CERTIFICATE: &str = "web-certificate.der";
const KEY: &str = "web-key.der";

/// Why there is no certificate for HTTPS.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Key or certificate cannot be generated.
    #[error("the certificate for HTTPS cannot be made")]
    Generate(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("the certificate for HTTPS cannot be made: {} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The TLS library does not know the protocol versions asked for.
    #[error("HTTPS cannot be configured")]
    Versions(#[source] rustls::Error),
    /// Key and certificate do not form an identity.
    #[error("the key for HTTPS is damaged: remove it and the certificate to get new ones")]
    Damaged { key: PathBuf, source: rustls::Error },
}

/// The TLS configuration with the certificate in `state`. Makes key and certificate if either file cannot be read.
///
/// # Errors
/// The directory cannot be written, or the key is damaged.
pub fn server_config(state: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let (certificate, key) = match (fs::read(state.join(CERTIFICATE)), fs::read(state.join(KEY))) {
        (Ok(certificate), Ok(key)) => (certificate, key),
        _ => make(state)?,
    };
    let chain = vec![CertificateDer::from(certificate)];
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Versions)?
        .with_no_client_auth()
        .with_single_cert(chain, PrivatePkcs8KeyDer::from(key).into())
        .map_err(|source| CertificateError::Damaged { key: state.join(KEY), source })?;
    // WebSockets need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn make(state: &Path) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec!["dyad".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Dyad node");
    let certificate = params.self_signed(&key)?.der().to_vec();
    let key = key.serialize_der();
    fs::create_dir_all(state).map_err(|source| CertificateError::Write { path: state.to_owned(), source })?;
    // The key is written first: a certificate on disk always has its key.
    for (name, bytes) in [(KEY, &key), (CERTIFICATE, &certificate)] {
        let path = state.join(name);
        dyad_atomic_file::replace(&path, bytes).map_err(|source| CertificateError::Write { path, source })?;
    }
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
