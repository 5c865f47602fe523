//! Group commit: commands are collected while the entry before is being written, and proposed as
//! one entry; each caller gets the results of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ballast_wire::log::Command;
use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};

use super::size::LogSize;
use super::types::{Outcome, Peer, TypeConfig};
use crate::data_dir::{FREE_BYTES, free_bytes};
use crate::metrics::Metrics;

/// Proposals that may wait: one of each node of the largest cluster, as all of them report at once
/// after a burst of placements, and as many again. At [`BATCH_COMMANDS`] an entry the last waits
/// about a second; past it callers are told to come again.
pub const PROPOSAL_QUEUE: usize = 2 * ballast_model::limits::NODES;
/// Proposals of one entry at most.
pub const BATCH_COMMANDS: usize = ballast_wire::log::BATCH_COMMANDS;
/// Things that the commands of one entry are about at most, unless a single proposal is about more:
/// bounds the bytes written with one fsync (about 100 each) and how long applying them takes.
const BATCH_WEIGHT: usize = 16_384;
/// Seconds after which a caller who was refused for want of room may try again.
pub const RETRY_AFTER_SECS: u64 = 1;

/// Why a change was not committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// [`PROPOSAL_QUEUE`] proposals wait.
    #[error("{PROPOSAL_QUEUE} changes wait for the log already; try again in {RETRY_AFTER_SECS} s")]
    Overloaded,
    /// Less than [`FREE_BYTES`] are free.
    #[error(
        "the manager's disk is full ({free} bytes are free, {FREE_BYTES} are needed): nothing can be changed until there is room"
    )]
    DiskFull {
        /// What is left.
        free: u64,
    },
    /// Another manager leads.
    #[error("this manager does not lead{}", leader.as_ref().map(|l| format!("; the leader is {l}")).unwrap_or_default())]
    NotLeader {
        /// Its address for links, if one is known.
        leader: Option<String>,
    },
    /// Raft has stopped; the manager is about to end.
    #[error("the manager is stopping: {0}")]
    Stopped(String),
}

impl ProposeError {
    /// Returns whether the same change may succeed later, here.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Overloaded | Self::DiskFull { .. })
    }
}

type Reply = oneshot::Sender<Result<Vec<Outcome>, ProposeError>>;

/// Commands that stay together, in order.
struct Proposal {
    commands: Vec<Command>,
    reply: Reply,
}

/// Takes commands to the log. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Proposal>,
    metrics: Metrics,
}

impl Proposer {
    /// Makes a proposer, and the task that must be run for it.
    pub(super) fn new(
        raft: Raft<TypeConfig>,
        dir: PathBuf,
        size: Arc<LogSize>,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, proposals) = mpsc::channel(PROPOSAL_QUEUE);
        let writer = Writer {
            raft,
            dir,
            size,
            metrics: metrics.clone(),
            proposals,
        };
        (Self { queue, metrics }, writer.run())
    }

    /// Proposes one command and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`] if it was not committed, or may not have been (`Stopped`).
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let outcomes = self.propose_all(vec![command]).await?;
        Ok(outcomes
            .into_iter()
            .next()
            .expect("a batch has one outcome for each command"))
    }

    /// Proposes commands that are applied next to each other, and waits for it.
    ///
    /// # Errors
    /// As [`Self::propose`], for all of them.
    pub async fn propose_all(&self, commands: Vec<Command>) -> Result<Vec<Outcome>, ProposeError> {
        let (reply, result) = oneshot::channel();
        let proposal = Proposal { commands, reply };
        self.queue.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.metrics.refused();
                ProposeError::Overloaded
            }
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        result.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> ProposeError {
    ProposeError::Stopped("its log is closed".to_owned())
}

/// The other end of the queue: one entry at a time.
struct Writer {
    raft: Raft<TypeConfig>,
    dir: PathBuf,
    size: Arc<LogSize>,
    metrics: Metrics,
    proposals: mpsc::Receiver<Proposal>,
}

impl Writer {
    async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.proposals.recv_many(&mut waiting, BATCH_COMMANDS).await > 0 {
            self.metrics.queued(self.proposals.len());
            while !waiting.is_empty() {
                let batch = next_batch(&mut waiting);
                self.write(batch).await;
            }
        }
    }

    async fn write(&self, mut batch: Vec<Proposal>) {
        if let Err(error) = self.check_room() {
            self.metrics.refused();
            answer_all(batch, &error);
            return;
        }
        self.size.has_room().await;
        let sizes: Vec<usize> = batch.iter().map(|p| p.commands.len()).collect();
        let commands: Vec<Command> = batch
            .iter_mut()
            .flat_map(|proposal| std::mem::take(&mut proposal.commands))
            .collect();
        let count = commands.len();
        let started = Instant::now();
        match self.raft.client_write(commands.into()).await {
            Ok(response) => {
                self.metrics.committed(count, started.elapsed());
                let mut outcomes = response.data.list.into_iter();
                for (proposal, size) in batch.into_iter().zip(sizes) {
                    let own = outcomes.by_ref().take(size).collect();
                    // A caller that has gone needs no answer.
                    let _ = proposal.reply.send(Ok(own));
                }
            }
            Err(error) => answer_all(batch, &refusal(error)),
        }
    }

    /// A write that fails for want of room ends Raft (the log may then be torn), so room is asked
    /// for before.
    fn check_room(&self) -> Result<(), ProposeError> {
        match free_bytes(&self.dir) {
            Ok(free) if free < FREE_BYTES => Err(ProposeError::DiskFull { free }),
            Ok(_) => Ok(()),
            Err(error) => {
                // The write itself will say what is wrong with the disk.
                tracing::warn!(%error, "free space cannot be read");
                Ok(())
            }
        }
    }
}

/// Takes proposals off the front until they fill an entry.
fn next_batch(waiting: &mut Vec<Proposal>) -> Vec<Proposal> {
    let mut total = 0;
    let mut take = 0;
    for proposal in waiting.iter() {
        total += proposal.commands.iter().map(weight).sum::<usize>();
        if take > 0 && (total > BATCH_WEIGHT || take >= BATCH_COMMANDS) {
            break;
        }
        take += 1;
    }
    waiting.drain(..take).collect()
}

/// Returns how many things a command is about.
fn weight(command: &Command) -> usize {
    1 + match command {
        Command::CreateTasks { tasks, .. } => tasks.len(),
        Command::PlaceTasks { placements, .. } => placements.len(),
        Command::SetDesired { tasks, .. } | Command::ForgetTasks { tasks, .. } => tasks.len(),
        Command::SetPending { tasks, .. } => tasks.len(),
        Command::Report { tasks, .. } => tasks.len(),
        _ => 0,
    }
}

fn answer_all(batch: Vec<Proposal>, error: &ProposeError) {
    for proposal in batch {
        let _ = proposal.reply.send(Err(error.clone()));
    }
}

fn refusal(error: RaftError<u64, ClientWriteError<u64, Peer>>) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            ProposeError::NotLeader {
                leader: forward.leader_node.map(|peer| peer.address),
            }
        }
        other => ProposeError::Stopped(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_model::{TaskId, Timestamp};

    fn proposal(tasks: usize) -> Proposal {
        let (reply, _) = oneshot::channel();
        let tasks = vec![TaskId::from_bits(1); tasks];
        let time = Timestamp(0);
        Proposal {
            commands: vec![Command::ForgetTasks { tasks, time }],
            reply,
        }
    }

    #[test]
    fn entry_is_bounded_by_what_its_commands_are_about_and_never_empty() {
        let large = BATCH_WEIGHT + 1;
        let sizes = [large, 1, 1, BATCH_WEIGHT - 10, 20, 1];
        let mut waiting: Vec<Proposal> = sizes.into_iter().map(proposal).collect();
        let taken: Vec<usize> =
            std::iter::from_fn(|| (!waiting.is_empty()).then(|| next_batch(&mut waiting).len()))
                .collect();
        assert_eq!(taken, [1, 3, 2]);
        let mut many: Vec<Proposal> = (0..=BATCH_COMMANDS).map(|_| proposal(0)).collect();
        assert_eq!(next_batch(&mut many).len(), BATCH_COMMANDS);
    }
}
