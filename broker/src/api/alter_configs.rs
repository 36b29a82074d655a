//! IncrementalAlterConfigs and AlterConfigs: what is set on topics changes while they are in use.
//!
//! A topic's new settings are worked out from those that this broker knows, and are a command to
//! group 0 that holds only if they are still what is set; if they are not, they are worked out
//! again. So changes that are made at once add up, whichever brokers take them. Every reader takes
//! a topic's settings from the metadata image, and so a change holds from the next image on.
//!
//! A broker's settings are those of its file. Kafka's throttles of moves are no settings here:
//! taking one away is in order, as `kafka-reassign-partitions.sh` does without asking.

use std::collections::{BTreeMap, BTreeSet};

use kafka_wire::messages::alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use kafka_wire::{ErrorCode, Response, StrBytes};
use model::NodeId;

use super::config::{BROKER, TOPIC, check_broker, find_topic};
use super::topic::Refusal;
use crate::cluster::{Command, Image, Outcome};
use crate::config::{BrokerSettings, ConfigError, ConfigKey, Kind, TOPIC_KEYS, TopicConfig};

/// `config_operation` of IncrementalAlterConfigs; AlterConfigs has nothing but `SET`.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What Kafka's tools set while partitions move, of a broker and of a topic.
const BROKER_THROTTLES: [&str; 3] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];
const TOPIC_THROTTLES: [&str; 2] =
    ["follower.replication.throttled.replicas", "leader.replication.throttled.replicas"];

/// The alterations of one request.
#[derive(Clone, Debug)]
pub(crate) struct AlterPlan {
    is_incremental: bool,
    validate_only: bool,
    /// Of this broker, as its clients know it.
    broker: NodeId,
    resources: Vec<Resource>,
}

/// A resource to alter, as the reply names it.
#[derive(Clone, Debug)]
struct Resource {
    kind: i8,
    name: StrBytes,
    alterations: Vec<Alteration>,
    state: State,
}

#[derive(Clone, Debug)]
struct Alteration {
    key: StrBytes,
    operation: i8,
    value: Option<StrBytes>,
}

#[derive(Clone, Debug)]
enum State {
    Refused(Refusal),
    Planned(Command),
    Done,
}

/// Checks each resource of an IncrementalAlterConfigs request.
pub(crate) fn plan_incremental(
    image: &Image,
    settings: &BrokerSettings,
    broker: NodeId,
    request: &IncrementalAlterConfigsRequest,
) -> AlterPlan {
    let resources = request.resources.iter().map(|resource| {
        let alterations = resource.configs.iter().map(|config| Alteration {
            key: config.name.clone(),
            operation: config.config_operation,
            value: config.value.clone(),
        });
        Resource::new(resource.resource_type, &resource.resource_name, alterations.collect())
    });
    let (resources, validate_only) = (resources.collect(), request.validate_only);
    let plan = AlterPlan { is_incremental: true, validate_only, broker, resources };
    plan.planned(image, settings)
}

/// Checks each resource of an AlterConfigs request, which names all that is to be set.
pub(crate) fn plan_whole(
    image: &Image,
    settings: &BrokerSettings,
    broker: NodeId,
    request: &AlterConfigsRequest,
) -> AlterPlan {
    let resources = request.resources.iter().map(|resource| {
        let alterations = resource.configs.iter().map(|config| Alteration {
            key: config.name.clone(),
            operation: SET,
            value: config.value.clone(),
        });
        Resource::new(resource.resource_type, &resource.resource_name, alterations.collect())
    });
    let (resources, validate_only) = (resources.collect(), request.validate_only);
    let plan = AlterPlan { is_incremental: false, validate_only, broker, resources };
    plan.planned(image, settings)
}

impl AlterPlan {
    fn planned(mut self, image: &Image, settings: &BrokerSettings) -> Self {
        let mut asked: BTreeMap<(i8, &str), usize> = BTreeMap::new();
        for resource in &self.resources {
            *asked.entry((resource.kind, resource.name.as_str())).or_default() += 1;
        }
        let is_repeated = |it: &Resource| asked.get(&(it.kind, it.name.as_str())) != Some(&1);
        let repeated: Vec<_> = self.resources.iter().map(is_repeated).collect();
        for (slot, is_repeated) in repeated.into_iter().enumerate() {
            let state = if is_repeated {
                let message = "Each resource must appear at most once.";
                State::Refused(Refusal::new(ErrorCode::InvalidRequest, message))
            } else {
                self.state_of(&self.resources[slot], image, settings)
            };
            self.resources[slot].state = state;
        }
        self
    }

    /// The commands to propose, each with the slot under which its outcome is settled. None if the
    /// request only asks whether it would work.
    pub(crate) fn commands(&self) -> Vec<(usize, Command)> {
        if self.validate_only {
            return Vec::new();
        }
        let command = |(slot, resource): (usize, &Resource)| match &resource.state {
            State::Planned(command) => Some((slot, command.clone())),
            State::Refused(_) | State::Done => None,
        };
        self.resources.iter().enumerate().filter_map(command).collect()
    }

    /// Notes what became of a command, or why it was not proposed or committed. Returns another
    /// one to propose in its place if the topic was altered by somebody else meanwhile: the image
    /// knows of that.
    pub(crate) fn settle(
        &mut self,
        slot: usize,
        result: Result<&Outcome, ErrorCode>,
        image: &Image,
        settings: &BrokerSettings,
    ) -> Option<Command> {
        let state = match result {
            Ok(Outcome::TopicConfigsSet { .. }) => State::Done,
            Ok(Outcome::TopicConfigsDiffer { .. }) => {
                self.state_of(self.resources.get(slot)?, image, settings)
            }
            // It was deleted between the plan and the commit.
            Ok(Outcome::TopicUnknown { .. }) => State::Refused(Refusal::unknown_topic(true)),
            Ok(_) => State::Refused(Refusal::unexpected()),
            Err(code) => State::Refused(Refusal::not_committed(code)),
        };
        let again = match &state {
            State::Planned(command) => Some(command.clone()),
            State::Refused(_) | State::Done => None,
        };
        self.resources.get_mut(slot)?.state = state;
        again
    }

    /// The reply. A command that was never settled has timed out.
    pub(crate) fn response(&self) -> Response {
        if self.is_incremental {
            let results = self.resources.iter().map(|resource| {
                let (code, message) = self.result(resource);
                AlterConfigsResourceResponse::default()
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_resource_type(resource.kind)
                    .with_resource_name(resource.name.clone())
            });
            let response = IncrementalAlterConfigsResponse::default();
            Response::IncrementalAlterConfigs(response.with_responses(results.collect()))
        } else {
            let results = self.resources.iter().map(|resource| {
                let (code, message) = self.result(resource);
                Altered::default()
                    .with_error_code(code)
                    .with_error_message(message)
                    .with_resource_type(resource.kind)
                    .with_resource_name(resource.name.clone())
            });
            let response = AlterConfigsResponse::default();
            Response::AlterConfigs(response.with_responses(results.collect()))
        }
    }

    fn result(&self, resource: &Resource) -> (i16, Option<StrBytes>) {
        let refusal = match &resource.state {
            State::Refused(refusal) => refusal.clone(),
            State::Planned(_) if !self.validate_only => {
                Refusal::not_committed(ErrorCode::RequestTimedOut)
            }
            State::Planned(_) | State::Done => return (ErrorCode::None.code(), None),
        };
        (refusal.code.code(), Some(refusal.text()))
    }

    fn state_of(&self, resource: &Resource, image: &Image, settings: &BrokerSettings) -> State {
        let altered = resource.check().and_then(|()| match resource.kind {
            TOPIC => self.topic(resource, image, settings).map(State::Planned),
            BROKER => self.broker(resource).map(|()| State::Done),
            other => {
                let message = format!("Unsupported resource type: {other}");
                Err(Refusal::new(ErrorCode::InvalidRequest, message))
            }
        });
        altered.unwrap_or_else(State::Refused)
    }

    /// The command that alters a topic. One that would change nothing is proposed as well: another
    /// broker may know of a change that this one has not heard of.
    fn topic(
        &self,
        resource: &Resource,
        image: &Image,
        settings: &BrokerSettings,
    ) -> Result<Command, Refusal> {
        let topic = find_topic(image, &resource.name)
            .map_err(|(code, message)| Refusal::new(code, message))?;
        let from = topic.config.overrides();
        let mut to = if self.is_incremental { from.clone() } else { BTreeMap::new() };
        for alteration in &resource.alterations {
            alteration.apply(&topic.config, settings, &mut to)?;
        }
        topic.config.with(to.clone(), settings).map_err(|error| invalid(&error))?;
        if topic.internal && *from != to {
            let message =
                format!("Topic '{}' is internal: its settings are the broker's own.", topic.name);
            return Err(Refusal::new(ErrorCode::InvalidConfig, message));
        }
        Ok(Command::SetTopicConfigs { topic_id: topic.id, from: from.clone(), to })
    }

    /// Nothing of a broker is set at run time, so there is nothing to take away either.
    fn broker(&self, resource: &Resource) -> Result<(), Refusal> {
        check_broker(self.broker, &resource.name)
            .map_err(|(code, message)| Refusal::new(code, message))?;
        for alteration in &resource.alterations {
            let key = alteration.key.as_str();
            if !BROKER_THROTTLES.contains(&key) {
                let message = format!(
                    "{key} is not altered while the broker runs: its settings are those that it \
                     was started with, in its configuration file or by --set."
                );
                return Err(Refusal::new(ErrorCode::InvalidRequest, message));
            }
            if alteration.operation != DELETE {
                return Err(nothing_to_throttle(key));
            }
        }
        Ok(())
    }
}

impl Resource {
    fn new(kind: i8, name: &StrBytes, alterations: Vec<Alteration>) -> Self {
        Self { kind, name: name.clone(), alterations, state: State::Done }
    }

    /// Each key once, and a value wherever one is needed.
    fn check(&self) -> Result<(), Refusal> {
        let refused = |message| Err(Refusal::new(ErrorCode::InvalidRequest, message));
        let mut keys = BTreeSet::new();
        for Alteration { key, operation, value } in &self.alterations {
            if !keys.insert(key.as_str()) {
                return refused(format!("Error due to duplicate config keys: {}", &**key));
            }
            if !(SET..=SUBTRACT).contains(operation) {
                return refused(format!("Unknown operation {operation} on {}", &**key));
            }
            if value.is_none() && *operation != DELETE {
                return refused(format!("Null value not supported for: {}", &**key));
            }
        }
        Ok(())
    }
}

impl Alteration {
    /// Makes the change to what is set on a topic that runs with `config`.
    fn apply(
        &self,
        config: &TopicConfig,
        settings: &BrokerSettings,
        to: &mut BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let name = self.key.to_string();
        let present = config.overrides().get(&name);
        let key = TOPIC_KEYS.iter().find(|key| *key.name == *name);
        if key.is_none() && present.is_none() {
            return Err(invalid(&ConfigError::Unknown { name }));
        }
        let given = self.value.as_deref().unwrap_or_default();
        let value = match self.operation {
            DELETE => {
                to.remove(&name);
                return Ok(());
            }
            SET => given.to_owned(),
            operation => {
                let list = key.filter(|key| key.kind == Kind::List);
                let list = list.ok_or_else(|| no_list(operation, &name))?;
                merged(operation, &in_force(config, list, settings), given)
            }
        };
        let is_new = present != Some(&value) && !value.trim().is_empty();
        if is_new && self.operation != SUBTRACT && TOPIC_THROTTLES.contains(&name.as_str()) {
            return Err(nothing_to_throttle(&name));
        }
        to.insert(name, value);
        Ok(())
    }
}

/// The value of a key that a topic runs with.
fn in_force(config: &TopicConfig, key: &ConfigKey, settings: &BrokerSettings) -> String {
    let values = config.effective(key, settings);
    values.into_iter().next().map(|it| it.value).unwrap_or_default()
}

/// A list with words appended that it lacks, or without those that are taken away.
fn merged(operation: i8, list: &str, given: &str) -> String {
    let words = |text: &'_ str| -> Vec<String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let (mut list, given) = (words(list), words(given));
    if operation == APPEND {
        for word in given {
            if !list.contains(&word) {
                list.push(word);
            }
        }
    } else {
        list.retain(|word| !given.contains(word));
    }
    list.join(",")
}

fn invalid(error: &ConfigError) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, error.to_string())
}

fn no_list(operation: i8, name: &str) -> Refusal {
    let word = if operation == APPEND { "APPEND to" } else { "SUBTRACT from" };
    let message = format!("Can't {word} key {name} because its type is not LIST.");
    Refusal::new(ErrorCode::InvalidConfig, message)
}

fn nothing_to_throttle(name: &str) -> Refusal {
    let message = format!("{name} has nothing to throttle: a partition that moves copies no log.");
    Refusal::new(ErrorCode::InvalidConfig, message)
}

#[cfg(test)]
#[path = "alter_configs_tests.rs"]
mod tests;
