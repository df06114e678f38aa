//! Argon2id, in blocking tasks: one hash takes tens of milliseconds and 19 MiB, which makes guessing expensive.

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier, password_hash::SaltString};
use dyad_api::{ApiError, ErrorCode};
use dyad_control::RefusalCode;
use tokio::sync::Semaphore;

/// Two at one time, so at most 38 MiB, however many passwords are sent.
static SLOTS: Semaphore = Semaphore::const_new(2);

/// Hashes a password; the result is in PHC text form.
pub(crate) async fn hash(password: &str) -> Result<String, ApiError> {
    let password = password.to_owned();
    run(move || {
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).ok()?;
        Argon2::default().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()).ok()
    })
    .await?
    .ok_or_else(|| ApiError::new(ErrorCode::PasswordHash, "The password could not be hashed: try again."))
}

/// A hash in PHC text form, as the document holds it.
#[derive(Clone, Copy)]
pub(crate) struct PhcHash<'a>(pub &'a str);

/// Whether the password has this hash.
pub(crate) async fn verify(password: &str, PhcHash(hash): PhcHash<'_>) -> Result<bool, ApiError> {
    let (password, hash) = (password.to_owned(), hash.to_owned());
    run(move || {
        let parsed = PasswordHash::new(&hash);
        parsed.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    })
    .await
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let stopping = || ApiError::new(RefusalCode::Stopping, "This node is stopping: try again in a moment.");
    let _slot = SLOTS.acquire().await.map_err(|_| stopping())?;
    tokio::task::spawn_blocking(work).await.map_err(|_| stopping())
}

#[cfg(test)]
mod tests {
    use super::{PhcHash, hash, verify};

    #[tokio::test]
    async fn only_the_right_password_is_right() {
        let made = hash("correct horse").await.unwrap();
        assert!(made.starts_with("$argon2id$"));
        assert!(verify("correct horse", PhcHash(&made)).await.unwrap());
        assert!(!verify("Correct horse", PhcHash(&made)).await.unwrap());
        assert!(!verify("correct horse", PhcHash("not a hash")).await.unwrap());
    }
}
