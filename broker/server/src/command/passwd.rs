//! `motemq passwd`: the users of a password file or of a SCRAM file, on the command line.
//!
//! Does not know: a running broker; it reads the file when it is told to (SIGHUP).

use clap::{Args, Subcommand};
use motemq::{password, password_import, scram_file};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// What to do with the users of a file.
#[derive(Subcommand)]
pub(crate) enum PasswdCommand {
    /// Add a user or change a password; asks for it, or reads it from standard input.
    Add {
        /// The user name.
        user: String,
        /// How often a client hashes its password at login, with --scram; more resists a stolen file longer and costs each
        /// client time.
        #[arg(long, value_name = "COUNT", default_value_t = SCRAM_ITERATIONS, requires = "scram",
            value_parser = clap::value_parser!(u32).range(iterations()))]
        iterations: u32,
        #[command(flatten)]
        file: PasswordFileArgs,
    },
    /// Remove a user.
    Rm {
        /// The user name.
        user: String,
        #[command(flatten)]
        file: PasswordFileArgs,
    },
    /// Copy the users of a mosquitto password file, their hashes as they are; plain-text passwords never.
    Import {
        /// The file that mosquitto_passwd wrote.
        #[arg(value_name = "MOSQUITTO_FILE")]
        from: PathBuf,
        /// The file to copy them to.
        #[arg(short, long, value_name = "FILE", default_value = "users")]
        file: PathBuf,
        /// Replace the passwords of users who are there already.
        #[arg(long)]
        replace: bool,
    },
    /// List the users, and whose passwords are stored in a weaker way.
    Ls {
        #[command(flatten)]
        file: PasswordFileArgs,
    },
}

#[derive(Args)]
pub(crate) struct PasswordFileArgs {
    /// The file; without it "users", or "scram-users" with --scram.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A SCRAM file, for auth.scram_file, in place of a password file.
    #[arg(long)]
    scram: bool,
}

fn iterations() -> RangeInclusive<i64> {
    let (least, most) = scram_file::ITERATIONS.into_inner();
    least.into()..=most.into()
}

impl PasswordFileArgs {
    fn path(&self) -> &Path {
        let default = if self.scram { "scram-users" } else { "users" };
        self.file.as_deref().unwrap_or_else(|| Path::new(default))
    }

    fn key(&self) -> &'static str {
        if self.scram {
            "auth.scram_file"
        } else {
            "auth.password_file"
        }
    }
}

/// Runs a subcommand.
pub(crate) fn run(command: &PasswdCommand) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    match command {
        PasswdCommand::Add {
            user,
            iterations,
            file,
        } => {
            let password = password::read_password(&format!("password for {user}: "))?;
            let path = file.path();
            match file.scram {
                true => {
                    let iterations = NonZeroU32::new(*iterations).unwrap_or(NonZeroU32::MIN);
                    scram_file::set_user(path, user, &password, iterations)?;
                }
                false => password::set_user(path, user, password.as_bytes())?,
            }
            let key = file.key();
            writeln!(
                out,
                "{user} can log in; use the file with: {key} = {path:?}"
            )?;
        }
        PasswdCommand::Import {
            from,
            file,
            replace,
        } => {
            let present = match replace {
                true => password_import::Present::Replaced,
                false => password_import::Present::Refused,
            };
            let imported = password_import::import(from, file, present)?;
            if imported.is_open_to_others {
                eprintln!("note: {} can be read by others", from.display());
            }
            let (users, weak) = (imported.users, imported.weak);
            writeln!(
                out,
                "{users} users can log in with the passwords they have; use the file with: auth.password_file = {file:?}"
            )?;
            if weak > 0 {
                writeln!(
                    out,
                    "{weak} of them have a hash of mosquitto that is weaker than ours; motemq passwd ls names them, motemq passwd add sets them anew"
                )?;
            }
        }
        PasswdCommand::Rm { user, file } => {
            password::remove_user(file.path(), user)?;
            if password::list(file.path())?.is_empty() {
                writeln!(
                    std::io::stderr(),
                    "note: no users are left in {0}. A broker refuses such a file and keeps the users it has: also take {0} out of its configuration, or ban the user (motemq ban add user {user:?})",
                    file.path().display()
                )?;
            }
        }
        PasswdCommand::Ls { file } => {
            for listed in password::list(file.path())? {
                let mark = match listed.is_weak {
                    true => "  # weaker hash of mosquitto: re-set with motemq passwd add",
                    false => "",
                };
                writeln!(out, "{}{mark}", listed.user)?;
            }
        }
    }
    Ok(())
}

/// RFC 7677 asks for 4096 at least and names 15,000 as the measure of its time.
const SCRAM_ITERATIONS: u32 = 15_000;
