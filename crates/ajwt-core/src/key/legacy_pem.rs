//! Legacy encrypted PEM: `Proc-Type: 4,ENCRYPTED` (RFC 1421 section 4.6) with OpenSSL's key derivation
//! from MD5. It is weak; it is read because such files are around, and never written.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, KeyInit, KeyIvInit as _, block_padding::Pkcs7};
use des::TdesEde3;
use md5::{Digest as _, Md5};
use zeroize::{Zeroize as _, Zeroizing};

use super::pem::Block;
use crate::{KeyError, error::shown};

/// Bytes of the IV that salt the key derivation.
const SALT_LEN: usize = 8;

/// Decrypts the body of a block; `None` if it is not encrypted.
pub(super) fn decrypt(
    block: &Block,
    password: Option<&[u8]>,
) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let header =
        |name: &str| block.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let Some(proc_type) = header("Proc-Type") else { return Ok(None) };
    if !proc_type.ends_with("ENCRYPTED") {
        return Ok(None);
    }
    let dek_info = header("DEK-Info").ok_or(KeyError::Pem("an encrypted block without a DEK-Info header"))?;
    let (cipher, iv) =
        dek_info.split_once(',').ok_or(KeyError::Pem("the DEK-Info header has no initialisation vector"))?;
    let iv = from_hex(iv.trim()).ok_or(KeyError::Pem("the DEK-Info header's vector is not hex"))?;
    let decrypt = match cipher.trim() {
        "AES-128-CBC" => decrypt_cbc::<Aes128>,
        "AES-192-CBC" => decrypt_cbc::<Aes192>,
        "AES-256-CBC" => decrypt_cbc::<Aes256>,
        "DES-EDE3-CBC" => decrypt_cbc::<TdesEde3>,
        "DES-CBC" => return Err(KeyError::UnsupportedEncryption { found: "single DES".into() }),
        other => return Err(KeyError::UnsupportedEncryption { found: shown(other) }),
    };
    let password = password.ok_or(KeyError::PasswordMissing)?;
    decrypt(&block.body, password, &iv).map(Some)
}

fn decrypt_cbc<C>(body: &[u8], password: &[u8], iv: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError>
where
    C: BlockCipherDecrypt + KeyInit,
{
    let bad_iv = KeyError::Pem("the DEK-Info header's vector has a wrong length");
    let salt = iv.get(..SALT_LEN).ok_or_else(|| bad_iv.clone())?;
    let key = derive(password, salt, C::key_size());
    let cipher = cbc::Decryptor::<C>::new_from_slices(&key, iv).map_err(|_| bad_iv)?;
    cipher.decrypt_padded_vec::<Pkcs7>(body).map(Zeroizing::new).map_err(|_| KeyError::PasswordWrong)
}

/// EVP_BytesToKey with MD5 and one round.
fn derive(password: &[u8], salt: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
    // Room for the last digest too, so that growing leaves no copy behind.
    let mut key = Zeroizing::new(Vec::with_capacity(len.next_multiple_of(16)));
    let mut digest = Zeroizing::new(Vec::with_capacity(16));
    while key.len() < len {
        let mut hash = Md5::new();
        hash.update(digest.as_slice());
        hash.update(password);
        hash.update(salt);
        digest.clear();
        let mut output = hash.finalize();
        digest.extend_from_slice(&output);
        output.as_mut_slice().zeroize();
        key.extend_from_slice(&digest);
    }
    key.truncate(len);
    key
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for pair in text.as_bytes().chunks_exact(2) {
        match pair {
            [high, low] => bytes.push((nibble(*high)? << 4) | nibble(*low)?),
            _ => return None,
        }
    }
    Some(bytes)
}
