//! Where tasks run: the flags of `service create` and `service update`.

use std::str::FromStr;

use ballast_model::{
    Affinity, Bytes, DeviceRequest, Placement, Policy, Resources, ServiceAffinity, SpreadRule,
    Toleration,
};
use clap::Args;

/// What else a task reserves, where it would rather run, and who gives way to whom.
#[derive(Debug, Default, Args)]
pub struct PlacementArgs {
    /// Disk to reserve for each task, such as 10g
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub disk: Option<Bytes>,
    /// Devices for each task: whole ones (`gpu=2`) or a part of one (`gpu=0.5`); `none` for none
    #[arg(long, value_name = "KIND[=N]")]
    pub device: Option<DeviceArg>,
    /// Units of a resource that nodes name, such as ssd=1
    #[arg(long, value_name = "NAME=N")]
    pub resource: Vec<ResourceArg>,
    /// Within one socket (1), evenly over N sockets, or anywhere (0)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub sockets: Option<u8>,
    /// Rather nodes for which this holds; a weight of -100 to 100 may stand before it, such as
    /// 80:node.labels.disk==ssd
    #[arg(long, value_name = "[WEIGHT:]EXPR", allow_hyphen_values = true)]
    pub affinity: Vec<Affinity>,
    /// Only where a task of this service is (`self` is this one), on the same node or the same
    /// value of a label; with a weight of 1 to 100 a wish
    #[arg(long, value_name = "[WEIGHT:]SERVICE[@OVER]")]
    pub near: Vec<NearArg>,
    /// Only where no task of this service is; with a weight of 1 to 100 a wish
    #[arg(long, value_name = "[WEIGHT:]SERVICE[@OVER]")]
    pub apart: Vec<ApartArg>,
    /// Bears a taint; `*` bears every one
    #[arg(long, value_name = "KEY[=VALUE][:EFFECT]")]
    pub toleration: Vec<Toleration>,
    /// How nodes that fit are ranked: auto, binpack, spread or fgd
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<Policy>,
    /// Higher ones are placed first and may take the place of lower ones
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub priority: Option<i32>,
    /// Whether tasks of lower priority may be stopped for this service's tasks
    #[arg(long, value_name = "BOOL")]
    pub preempts: Option<bool>,
    /// The most tasks of this service that are moved or preempted at one time
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub max_disrupted: Option<u32>,
    /// Places all missing tasks together, or none
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub gang: Option<bool>,
    /// Whether tasks may be moved to even out or to empty nodes
    #[arg(long, value_name = "BOOL")]
    pub rebalance: Option<bool>,
}

/// Devices, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceArg(pub DeviceRequest);

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(DeviceRequest::NONE));
        }
        text.parse()
            .map(Self)
            .map_err(|error: ballast_model::InvalidDevices| error.to_string())
    }
}

/// Units of a named resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceArg {
    /// Its name.
    pub name: String,
    /// How many.
    pub units: u32,
}

impl FromStr for ResourceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, units) = text.split_once('=').unwrap_or((text, "1"));
        match units.trim().parse() {
            Ok(units) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                units,
            }),
            _ => Err(format!("`{text:.64}` is not NAME=N, such as `ssd=1`")),
        }
    }
}

/// What the task is near to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearArg(pub ServiceAffinity);

impl FromStr for NearArg {
    type Err = ballast_model::InvalidRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ServiceAffinity::near(text).map(Self)
    }
}

/// What the task keeps away from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApartArg(pub ServiceAffinity);

impl FromStr for ApartArg {
    type Err = ballast_model::InvalidRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ServiceAffinity::apart(text).map(Self)
    }
}

/// What is spread over: `none`, or as [`SpreadRule`] is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadArg(pub Option<SpreadRule>);

impl FromStr for SpreadArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text == "node" || text.starts_with("node.") || text.starts_with("node:");
        match text {
            "none" => Ok(Self(None)),
            _ if named => text
                .parse()
                .map(|rule| Self(Some(rule)))
                .map_err(|error: ballast_model::InvalidRule| error.to_string()),
            _ => Err(format!(
                "`{text}` is not something to spread over: none, node or node.labels.KEY, then \
                 :SKEW for the most that one may have more than another"
            )),
        }
    }
}

impl PlacementArgs {
    /// Adds what the flags say to what a task reserves.
    pub fn reserve(&self, resources: &mut Resources) {
        if let Some(disk) = self.disk {
            resources.disk = disk;
        }
        if let Some(DeviceArg(devices)) = &self.device {
            resources.devices.clone_from(devices);
        }
        for ResourceArg { name, units } in &self.resource {
            if *units == 0 {
                resources.custom.remove(name);
            } else {
                resources.custom.insert(name.clone(), *units);
            }
        }
    }

    /// Adds what the flags say to where a service's tasks run; rules that are there already stay
    /// once.
    pub fn apply(&self, placement: &mut Placement) {
        for affinity in &self.affinity {
            placement
                .affinities
                .retain(|known| known.constraint != affinity.constraint);
            placement.affinities.push(affinity.clone());
        }
        let near = self.near.iter().map(|near| &near.0);
        for rule in near.chain(self.apart.iter().map(|apart| &apart.0)) {
            placement
                .services
                .retain(|known| (&known.service, &known.over) != (&rule.service, &rule.over));
            placement.services.push(rule.clone());
        }
        for toleration in &self.toleration {
            if !placement.tolerations.contains(toleration) {
                placement.tolerations.push(toleration.clone());
            }
        }
        set(&mut placement.sockets, self.sockets);
        set(&mut placement.policy, self.policy);
        set(&mut placement.priority, self.priority);
        set(&mut placement.preempts, self.preempts);
        set(&mut placement.max_disrupted, self.max_disrupted);
        set(&mut placement.gang, self.gang);
        set(&mut placement.rebalance, self.rebalance);
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}
