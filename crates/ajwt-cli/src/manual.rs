use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{cli, failure::Failure, output};

/// Writes the completions of a shell.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the man pages.
#[derive(Args, Debug)]
pub(crate) struct Manual {
    /// Writes the pages of all commands into this folder; without it that of ajwt goes to standard output
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli::command(), "ajwt", &mut script);
        output::bytes(&script)
    }
}

impl Manual {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if let Some(folder) = &self.output {
            let written = clap_mangen::generate_to(cli::command(), folder);
            return written.map_err(Failure::of(format!("{} cannot be written to", folder.display())));
        }
        let mut page = Vec::new();
        Man::new(cli::command()).render(&mut page)?;
        output::bytes(&page)
    }
}
