use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use ajwt_core::{PrivateKey, RsaKeySize};
use clap::{Args, ValueEnum, error::ErrorKind};
use indicatif::ProgressBar;
use tempfile::{Builder, NamedTempFile};
use zeroize::Zeroizing;

use crate::{cli, failure::Failure, input, output, private_key::Access};

/// Makes a new key.
#[derive(Args)]
pub(crate) struct Keygen {
    /// The type of key
    #[arg(long = "type", value_enum, default_value = "ed25519")]
    key_type: KeyType,
    /// The size of an RSA key. 3072 by default
    #[arg(long, value_parser = bits)]
    bits: Option<RsaKeySize>,
    /// The format of the private key's file
    #[arg(long, value_enum, default_value = "pkcs8")]
    format: Format,
    #[command(flatten)]
    access: Access,
    /// Writes the private key to FILE (mode 0600 on Unix) and the public one to FILE.pub; without it both go to
    /// standard output, private first, for a program that takes them apart
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyType {
    Ed25519,
    Rsa,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Pkcs8,
    Openssh,
}

fn bits(text: &str) -> Result<RsaKeySize, String> {
    match text {
        "2048" => Ok(RsaKeySize::Bits2048),
        "3072" => Ok(RsaKeySize::Bits3072),
        "4096" => Ok(RsaKeySize::Bits4096),
        "8192" => Ok(RsaKeySize::Bits8192),
        _ => Err("2048, 3072, 4096 and 8192 are possible".to_owned()),
    }
}

impl Keygen {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if let Some(wrong) = self.wrong() {
            cli::command().error(ErrorKind::ArgumentConflict, wrong).exit();
        }
        let files = self.output.as_deref().map(Files::new).transpose()?;
        let passphrase = self.access.of_new_key(files.is_some())?;
        let key = self.generate()?;
        let private = self.text(&key, passphrase.as_ref().map(|passphrase| passphrase.as_slice()))?;
        let public = match self.format {
            Format::Pkcs8 => key.public_key().to_pem(),
            Format::Openssh => key.public_key().to_openssh("") + "\n",
        };
        let Some(files) = files else {
            output::text(&private)?;
            return output::text(&public);
        };
        files.write(private.as_bytes(), public.as_bytes())?;
        if passphrase.is_none() {
            output::note(&format!("the private key {} is not encrypted", files.private.display()));
        }
        output::line(key.public_key().fingerprint().as_str())
    }

    /// What clap itself cannot be told to refuse.
    fn wrong(&self) -> Option<&'static str> {
        if self.bits.is_some() && matches!(self.key_type, KeyType::Ed25519) {
            return Some("--bits is for --type rsa: give that, too, or leave out --bits");
        }
        let is_standard = self.output.as_deref().is_some_and(input::is_standard);
        is_standard.then_some("--output names a file, and - is none: leave it out to print both keys")
    }

    fn generate(&self) -> Result<PrivateKey, Failure> {
        match self.key_type {
            KeyType::Ed25519 => Ok(PrivateKey::generate_ed25519()?),
            KeyType::Rsa => {
                // It takes up to a minute. Nothing shows where there is no terminal.
                let spinner = ProgressBar::new_spinner().with_message("looking for two large primes");
                spinner.enable_steady_tick(Duration::from_millis(100));
                let key = PrivateKey::generate_rsa(self.bits.unwrap_or(RsaKeySize::Bits3072));
                spinner.finish_and_clear();
                Ok(key?)
            }
        }
    }

    fn text(&self, key: &PrivateKey, passphrase: Option<&[u8]>) -> Result<Zeroizing<String>, Failure> {
        let text = match (self.format, passphrase) {
            (Format::Pkcs8, None) => key.to_pem(),
            (Format::Pkcs8, Some(passphrase)) => key.to_encrypted_pem(passphrase),
            (Format::Openssh, None) => key.to_openssh(""),
            (Format::Openssh, Some(passphrase)) => key.to_encrypted_openssh("", passphrase),
        };
        Ok(text?)
    }
}

/// The two files of a key. Neither is there before both are whole, and none is ever overwritten.
struct Files {
    private: PathBuf,
    public: PathBuf,
}

impl Files {
    fn new(private: &Path) -> Result<Self, Failure> {
        let mut public = OsString::from(private);
        public.push(".pub");
        let files = Self { private: private.to_owned(), public: public.into() };
        for path in [&files.private, &files.public] {
            // Whether it is there is asked again when it is written; here it saves making a key.
            if path.symlink_metadata().is_ok() {
                return Err(exists(path));
            }
        }
        Ok(files)
    }

    fn write(&self, private: &[u8], public: &[u8]) -> Result<(), Failure> {
        let private_file = whole(&self.private, private, 0o600)?;
        let public_file = whole(&self.public, public, 0o644)?;
        keep(private_file, &self.private)?;
        keep(public_file, &self.public).inspect_err(|_| {
            // Ours, of a moment ago: the two come together or not at all.
            let _ = fs::remove_file(&self.private);
        })
    }
}

/// Writes to a file of another name in the same folder.
fn whole(path: &Path, bytes: &[u8], mode: u32) -> Result<NamedTempFile, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut builder = Builder::new();
        builder.prefix(".ajwt-");
        set_mode(&mut builder, mode);
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(file)
    };
    write().map_err(|error: std::io::Error| {
        Failure::new(format!("{} cannot be written: {error}", path.display()))
    })
}

/// Gives it its name, unless there is such a file by now.
fn keep(file: NamedTempFile, path: &Path) -> Result<(), Failure> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) => Err(Failure::new(format!("{} cannot be written: {}", path.display(), error.error))),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::new(format!("{} is there already and is not overwritten; give another name", path.display()))
}

#[cfg(unix)]
fn set_mode(builder: &mut Builder<'_, '_>, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;

    builder.permissions(std::fs::Permissions::from_mode(mode));
}

#[cfg(not(unix))]
fn set_mode(_: &mut Builder<'_, '_>, _: u32) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// To make a key of each would take minutes.
    #[test]
    fn each_size_is_that_of_its_number() {
        for (text, size) in [
            ("2048", RsaKeySize::Bits2048),
            ("3072", RsaKeySize::Bits3072),
            ("4096", RsaKeySize::Bits4096),
            ("8192", RsaKeySize::Bits8192),
        ] {
            assert_eq!(bits(text), Ok(size));
        }
        for text in ["", "0", "1024", "4096 ", "+4096", "16384"] {
            assert!(bits(text).is_err(), "{text:?}");
        }
    }
}
