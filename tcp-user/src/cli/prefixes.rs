//! `xtcp allow` and `xtcp deny`.

use std::io::Write;

use anyhow::Result;
use clap::{Args, Subcommand};
use xtcp::config::read_prefix;
use xtcp::control::client::Client;
use xtcp::control::protocol::MAX_PREFIXES_OF_REQUEST;
use xtcp::control::{Change, Outcome, RuleName};

use super::ClientArguments;

#[derive(Debug, Args)]
pub struct PrefixArguments {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add prefixes; one that is in the other list leaves it.
    Add {
        /// Such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1.
        #[arg(value_name = "PREFIX", required = true)]
        prefixes: Vec<String>,
    },
    /// Remove prefixes, as they were added.
    Del {
        /// Such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1.
        #[arg(value_name = "PREFIX", required = true)]
        prefixes: Vec<String>,
    },
    /// Show them, one a line, by address.
    List {
        /// As a JSON array of strings.
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(rule: RuleName, arguments: PrefixArguments) -> Result<()> {
    let PrefixArguments { action, client } = arguments;
    match action {
        Action::Add { prefixes } => change(rule, Change::Add, &prefixes, &client).await,
        Action::Del { prefixes } => change(rule, Change::Del, &prefixes, &client).await,
        Action::List { json } => list(rule, json, &client).await,
    }
}

/// One after the other, up to the first that fails; nothing if one of them is no prefix.
async fn change(rule: RuleName, change: Change, texts: &[String], client: &ClientArguments) -> Result<()> {
    let canonical = |text: &String| read_prefix(text).map(|prefix| prefix.to_string());
    let prefixes: Vec<String> = texts.iter().map(canonical).collect::<Result<_, _>>()?;
    for some in prefixes.chunks(MAX_PREFIXES_OF_REQUEST) {
        let mut lines = String::new();
        let sink = |prefix: String, outcome| lines += &format!("{prefix}: {}\n", describe(rule, outcome));
        let ended = Client::open(&client.control_socket).await?.change(rule, change, some.to_vec(), sink).await;
        write!(std::io::stdout(), "{lines}")?;
        ended?;
    }
    Ok(())
}

fn describe(rule: RuleName, outcome: Outcome) -> String {
    let (now, other) = match rule {
        RuleName::Allow => ("allowed", "denied"),
        RuleName::Deny => ("denied", "allowed"),
    };
    match outcome {
        Outcome::Added => now.to_owned(),
        Outcome::Replaced => format!("{now}, no longer {other}"),
        Outcome::Unchanged => format!("{now} already"),
        Outcome::Removed => format!("no longer {now}"),
    }
}

async fn list(rule: RuleName, json: bool, client: &ClientArguments) -> Result<()> {
    let prefixes = Client::open(&client.control_socket).await?.prefixes(rule).await?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if json {
        serde_json::to_writer(&mut out, &prefixes).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        prefixes.iter().try_for_each(|prefix| writeln!(out, "{prefix}"))?;
    }
    Ok(out.flush()?)
}
