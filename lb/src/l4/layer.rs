//! Layer 4 of one ingress: what is done in the kernel, and what in user space.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_model::Protocol;
use tokio_util::sync::CancellationToken;

use super::xdp::{Balancer, Described, L4Error};
use super::{L4Config, L4Service, Net, Publish, Run, UserService};
use crate::chain;
use crate::hub::Hub;
use crate::table::RouteTable;
use ballast_ebpf_loader::Error;

/// Between two looks at what no table tells: ways to reals, flows of those that left.
const LOOK: Duration = Duration::from_secs(1);
/// The same while a real waits for a way to it.
const SOON: Duration = Duration::from_millis(50);
/// The one interface on which packets of this host to itself go, without a neighbour.
const LOOPBACK: &str = "lo";

/// Layer 4 of one ingress.
#[derive(Debug, Default)]
pub struct Layer4 {
    balancer: Mutex<Option<Arc<Balancer>>>,
    user: Mutex<Arc<[UserService]>>,
}

impl Layer4 {
    /// Makes the services those of `config`, with the reals of `table`. May wait for neighbours.
    ///
    /// # Errors
    /// The kernel's part cannot do what it is told; all stays as it was.
    pub fn take(&self, config: &L4Config, table: &RouteTable) -> Result<(), L4Error> {
        let loopback = config.options.run == Run::Auto;
        let (user, kernel): (Vec<L4Service>, Vec<L4Service>) =
            config.services.iter().cloned().partition(|spec| {
                config.options.run == Run::User || (loopback && spec.interface == LOOPBACK)
            });
        let mut user = user;
        if let Err(fallen) = self.take_kernel(config, kernel, table)? {
            user.extend(fallen);
        }
        let user = user.iter().filter_map(in_user_space).collect();
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) = user;
        Ok(())
    }

    /// Does the kernel's part; gives the services back if there can be none.
    fn take_kernel(
        &self,
        config: &L4Config,
        services: Vec<L4Service>,
        table: &RouteTable,
    ) -> Result<Result<(), Vec<L4Service>>, L4Error> {
        let known = self.balancer();
        if known.is_none() && services.is_empty() {
            return Ok(Ok(()));
        }
        let balancer = match known {
            Some(balancer) => balancer,
            None => match Balancer::load(&config.options) {
                Ok(balancer) => Arc::new(balancer),
                Err(L4Error::Xdp(error))
                    if config.options.run == Run::Auto && is_lacking(&error) =>
                {
                    let error = chain(&error);
                    tracing::warn!(
                        error,
                        "the kernel cannot balance here: layer 4 is served in user space"
                    );
                    return Ok(Err(services));
                }
                Err(error) => return Err(error),
            },
        };
        let own = L4Config {
            services,
            ..config.clone()
        };
        balancer.take(&own, table)?;
        *self.balancer.lock().unwrap_or_else(PoisonError::into_inner) = Some(balancer);
        Ok(Ok(()))
    }

    fn balancer(&self) -> Option<Arc<Balancer>> {
        let balancer = self.balancer.lock();
        balancer.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows a new table: what is out is out of the kernel's maps when it returns.
    pub fn follow(&self, table: &RouteTable) {
        if let Some(balancer) = self.balancer() {
            balancer.follow(table);
        }
    }

    /// Looks for the ways to reals that are new, and waits a little for them.
    pub fn settle(&self, table: &RouteTable) {
        if let Some(balancer) = self.balancer() {
            balancer.look_after(table, true);
        }
    }

    /// Returns what is served in user space.
    pub fn user(&self) -> Arc<[UserService]> {
        let user = self.user.lock();
        Arc::clone(&user.unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what stands in the kernel's maps; flows are counted if `flows`.
    pub fn describe(&self, flows: bool) -> Vec<Described> {
        self.balancer()
            .map(|balancer| balancer.describe(flows))
            .unwrap_or_default()
    }

    /// Ends the kernel's part as it is told to end.
    pub fn stop(&self) {
        if let Some(balancer) = self.balancer() {
            balancer.stop();
        }
    }
}

/// Whether it is something that this process or kernel lacks, for which nobody can be asked to
/// write another configuration.
fn is_lacking(error: &Error) -> bool {
    matches!(
        error,
        Error::NotPermitted(_) | Error::Kernel { .. } | Error::BpfFs { .. }
    )
}

fn in_user_space(spec: &L4Service) -> Option<UserService> {
    let (true, Some(port)) = (spec.vip.is_single(), spec.port) else {
        tracing::error!(
            service = %spec.name,
            "a net or any port can be served by the kernel alone: not served"
        );
        return None;
    };
    Some(UserService {
        address: SocketAddr::new(spec.vip.address, port),
        protocol: spec.protocol,
        pool: spec.pool.clone(),
    })
}

/// Does [`Layer4::take`] with the table that there is.
///
/// # Errors
/// See there.
pub async fn take(hub: &Arc<Hub>, config: &L4Config) -> Result<(), L4Error> {
    let (hub, config) = (Arc::clone(hub), config.clone());
    let taken = tokio::task::spawn_blocking(move || hub.l4.take(&config, &hub.table()));
    match taken.await {
        Ok(taken) => taken,
        // It panicked, which it has said: as good as not taken.
        Err(_) => Err(L4Error::Broken),
    }
}

/// Looks after the kernel's part until `stop`.
pub async fn look_after(hub: Arc<Hub>, stop: CancellationToken) {
    loop {
        let waits = hub.l4.balancer().is_some_and(|balancer| balancer.waits());
        let pause = if waits { SOON } else { LOOK };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        if let Some(balancer) = hub.l4.balancer() {
            let table = hub.table();
            // It fails only if it panicked, which it has said then.
            let _ = tokio::task::spawn_blocking(move || balancer.look_after(&table, false)).await;
        }
    }
}

/// Puts the published TCP and UDP ports of a cluster on the balancer in the kernel, as they come and
/// go, until `stop`.
pub async fn publish(hub: Arc<Hub>, config: L4Config, stop: CancellationToken) {
    let Some(publish) = config.publish.clone() else {
        return;
    };
    let mut routings = hub.routings();
    routings.mark_changed();
    loop {
        tokio::select! {
            changed = routings.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let table = hub.table();
        let own = L4Config {
            services: published(&table, &publish),
            ..config.clone()
        };
        if let Err(error) = take(&hub, &own).await {
            let error = chain(&error);
            tracing::error!(
                error,
                "published ports are not on the balancer in the kernel"
            );
        }
    }
}

/// Returns the services that a table publishes by TCP and UDP.
fn published(table: &RouteTable, publish: &Publish) -> Vec<L4Service> {
    let ports = table.routing.ports();
    let ports = ports
        .into_iter()
        .filter(|(_, protocol)| *protocol != Protocol::Http);
    let services = ports.filter_map(|(port, protocol)| {
        let pool = table.published(port)?;
        Some(L4Service {
            name: std::sync::Arc::clone(&pool.service_name),
            pool: pool.key.clone(),
            vip: Net::of(publish.vip),
            port: Some(port),
            protocol,
            forward: publish.forward,
            interface: publish.interface.clone(),
            source: publish.source,
            by_source: false,
            quic: false,
            echo: false,
            second_chance: false,
            server_ids: std::collections::BTreeMap::new(),
        })
    });
    services.collect()
}
