//! `duet kernel`: the kernels of the VM mode.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use duet_vm::kernel::fetch::{Wanted, fetch};
use duet_vm::kernel::image::Init;
use duet_vm::kernel::{self, Kernel};

/// Options of `duet kernel`.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Get the distribution's kernel: its package is downloaded and unpacked, not installed
    Fetch {
        /// Another package than the distribution's usual one for virtual machines
        #[arg(value_name = "PACKAGE")]
        package: Option<String>,
        /// libkrunfw's kernel, which starts faster than the distribution's
        #[arg(long, conflicts_with = "package")]
        libkrunfw: bool,
    },
    /// Keep a kernel image: an ELF image, a bzImage, or libkrunfw's library
    Add {
        /// The image
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Its modules, a /lib/modules/VERSION
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// Its name in the list; by default the file's
        #[arg(long)]
        name: Option<String>,
    },
    /// List the kernels, the one that is used by default first, and installed libraries of libkrunfw last
    List,
}

/// Runs the command.
pub fn main(options: &Options) -> Result<u8> {
    match &options.action {
        Action::Fetch { package, libkrunfw } => {
            let wanted = match package {
                _ if *libkrunfw => Wanted::Library,
                Some(package) => Wanted::Package(package),
                None => Wanted::Usual,
            };
            print(&fetch(wanted)?);
        }
        Action::Add {
            file,
            modules,
            name,
        } => {
            let own = file.file_name().map(|n| n.to_string_lossy().into_owned());
            let Some(name) = name.clone().or(own) else {
                bail!("{}: has no name; give one with --name", file.display());
            };
            print(&kernel::add(&name, file, modules.as_deref())?);
        }
        Action::List => {
            let all = kernel::list()?;
            if all.is_empty() {
                eprintln!("no kernels; `duet kernel fetch` gets the distribution's");
            }
            all.iter().for_each(print);
        }
    }
    Ok(0)
}

fn print(kernel: &Kernel) {
    let from = match kernel.init {
        Init::Initramfs => format!("{} modules", kernel.modules.len()),
        Init::Root => "no initramfs".into(),
    };
    println!("{}\t{}\t{from}", kernel.name, kernel.format.name());
}
