//! Writes the seeds of all targets into `corpus/TARGET`, named by what they hold.

use std::{error::Error, fs, path::Path};

use sha2::{Digest as _, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    for target in ajwt_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        fs::create_dir_all(&folder)?;
        let seeds = (target.seeds)();
        println!("{}: {} seeds", target.name, seeds.len());
        for seed in seeds {
            let name: String =
                Sha256::digest(&seed).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            fs::write(folder.join(name), seed)?;
        }
    }
    Ok(())
}
