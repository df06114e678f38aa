//! Hashing of passwords with Argon2id, in blocking tasks. One hash takes tens of milliseconds and 19 MiB of memory, which
//! makes guessing expensive.

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier, password_hash::SaltString};
use dyad_api::{ApiError, ErrorCode};
use dyad_control::RefusalCode;
use tokio::sync::Semaphore;

/// Permits for two hashes at a time, so that hashing needs at most 38 MiB, however many passwords are sent.
static HASH_PERMITS: Semaphore = Semaphore::const_new(2);

/// Hashes a password with a random salt. The result is in PHC text form.
pub(crate) async fn hash(password: &str) -> Result<String, ApiError> {
    let password = password.to_owned();
    run_blocking(move || {
        let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).ok()?;
        Argon2::default().hash_password(password.as_bytes(), &salt).map(|hash| hash.to_string()).ok()
    })
    .await?
    .ok_or_else(|| ApiError::new(ErrorCode::PasswordHash, "The password could not be hashed: try again."))
}

/// A hash in PHC text form, as the document holds it.
#[derive(Clone, Copy)]
pub(crate) struct PhcHash<'a>(pub &'a str);

/// Whether this is the password of the hash. A hash that cannot be parsed fits no password.
pub(crate) async fn verify(password: &str, PhcHash(hash): PhcHash<'_>) -> Result<bool, ApiError> {
    let (password, hash) = (password.to_owned(), hash.to_owned());
    run_blocking(move || {
        let parsed = PasswordHash::new(&hash);
        parsed.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    })
    .await
}

/// Runs the hashing in a blocking task, when a permit is free.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let stopping = || ApiError::new(RefusalCode::Stopping, "This node is stopping: try again in a moment.");
    let _permit = HASH_PERMITS.acquire().await.map_err(|_| stopping())?;
    tokio::task::spawn_blocking(work).await.map_err(|_| stopping())
}

#[cfg(test)]
mod tests {
    use super::{PhcHash, hash, verify};

    #[tokio::test]
    async fn only_the_hashed_password_is_accepted() {
        let made = hash("correct horse").await.unwrap();
        assert!(made.starts_with("$argon2id$"));
        assert!(verify("correct horse", PhcHash(&made)).await.unwrap());
        assert!(!verify("Correct horse", PhcHash(&made)).await.unwrap());
        assert!(!verify("correct horse", PhcHash("not a hash")).await.unwrap());
    }
}
