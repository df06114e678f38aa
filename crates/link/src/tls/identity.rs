//! The key and certificate of a node or witness, and their files.

use std::fs;
use std::path::Path;

use dyad_atomic_file::{PRIVATE, PUBLIC};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsError;
use crate::Fingerprint;

const CERTIFICATE_FILE: &str = "identity.crt";
const KEY_FILE: &str = "identity.key";

/// A private key (ECDSA P-256) and its self-signed certificate. Peers are identified by the fingerprint. Name and
/// validity of the certificate are not checked: clocks may be wrong by years.
pub struct TlsIdentity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsIdentity({})", self.fingerprint())
    }
}

impl Clone for TlsIdentity {
    fn clone(&self) -> Self {
        Self { certificate: self.certificate.clone(), key: self.key.clone_key() }
    }
}

impl TlsIdentity {
    /// Creates a key and its certificate. `name` is shown by tools that print certificates and has no other use.
    ///
    /// # Errors
    /// [`TlsError::Generate`] if `name` cannot be part of a certificate.
    pub fn generate(name: &str) -> Result<Self, TlsError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(TlsError::Generate)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        let certificate = params.self_signed(&key).map_err(TlsError::Generate)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key just made has a known form"),
        })
    }

    /// Reads the identity that [`Self::store`] wrote to `directory`.
    ///
    /// # Errors
    /// [`TlsError::File`] if a file cannot be read, [`TlsError::Damaged`] if it has no key or certificate.
    pub fn load(directory: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read(&path).map(|text| (path.clone(), text)).map_err(|source| TlsError::File { path, source })
        };
        let (path, text) = read(CERTIFICATE_FILE)?;
        let certificate = CertificateDer::from_pem_slice(&text).map_err(|_| TlsError::Damaged { path })?;
        let (path, text) = read(KEY_FILE)?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::Damaged { path })?;
        Ok(Self { certificate, key })
    }

    /// Writes the identity to `directory`, durably. Only the owner can read the key file. The certificate file is
    /// written last: its presence marks a complete identity.
    ///
    /// # Errors
    /// [`TlsError::File`] if a file cannot be written.
    pub fn store(&self, directory: &Path) -> Result<(), TlsError> {
        let key = pem("PRIVATE KEY", self.key.secret_der());
        let certificate = pem("CERTIFICATE", &self.certificate);
        for (name, mode, text) in [(KEY_FILE, PRIVATE, key), (CERTIFICATE_FILE, PUBLIC, certificate)] {
            let path = directory.join(name);
            dyad_atomic_file::replace_with_mode(&path, text.as_bytes(), mode)
                .map_err(|source| TlsError::File { path, source })?;
        }
        Ok(())
    }

    /// Loads the identity in `directory`. If it has no certificate file, a new identity is generated and stored there.
    ///
    /// # Errors
    /// As [`Self::load`], [`Self::generate`] and [`Self::store`]. A damaged identity is an error and is not replaced.
    pub fn load_or_generate(directory: &Path, name: &str) -> Result<Self, TlsError> {
        if directory.join(CERTIFICATE_FILE).exists() {
            return Self::load(directory);
        }
        let identity = Self::generate(name)?;
        identity.store(directory)?;
        Ok(identity)
    }

    /// Removes the identity files in `directory`, durably and the certificate file first, so that
    /// [`Self::load_or_generate`] generates a new identity, also after a loss of power.
    ///
    /// # Errors
    /// [`TlsError::Remove`] if a file exists and cannot be removed, or the removal cannot be made durable.
    pub fn forget(directory: &Path) -> Result<(), TlsError> {
        for name in [CERTIFICATE_FILE, KEY_FILE] {
            let path = directory.join(name);
            dyad_atomic_file::remove(&path).map_err(|source| TlsError::Remove { path, source })?;
        }
        Ok(())
    }

    /// The fingerprint by which peers pin this identity.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// The certificate as PEM text, for the web server's TLS.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The private key as PEM text. It must never be logged or sent.
    #[must_use]
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.secret_der())
    }
}

/// PEM text of DER data, according to RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body = String::new();
    for group in der.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (word >> (18 - 6 * place)) & 63;
            body.push(if place <= group.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_stored_identity_is_loaded_and_only_the_owner_can_read_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let identity = TlsIdentity::load_or_generate(directory.path(), "node a").unwrap();
        let again = TlsIdentity::load_or_generate(directory.path(), "other name").unwrap();
        assert_eq!(identity.fingerprint(), again.fingerprint());
        assert_eq!(identity.key.secret_der(), again.key.secret_der());
        let mode = fs::metadata(directory.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn forgetting_an_identity_twice_is_no_error_and_the_next_identity_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let identity = TlsIdentity::load_or_generate(directory.path(), "node a").unwrap();
        TlsIdentity::forget(directory.path()).unwrap();
        TlsIdentity::forget(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let another = TlsIdentity::load_or_generate(directory.path(), "node a").unwrap();
        assert_ne!(identity.fingerprint(), another.fingerprint());
    }

    #[test]
    fn a_damaged_identity_is_an_error_and_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        TlsIdentity::load_or_generate(directory.path(), "node a").unwrap();
        fs::write(directory.path().join(KEY_FILE), "nothing").unwrap();
        assert!(matches!(TlsIdentity::load_or_generate(directory.path(), "node a"), Err(TlsError::Damaged { .. })));
    }

    #[test]
    fn pem_of_each_length_is_decoded_to_the_same_bytes() {
        for length in 0..70 {
            let der: Vec<u8> = (0..length).collect();
            let text = pem("CERTIFICATE", &der);
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
        }
    }
}
