//! DescribeConfigs: what topics and this broker run with, and where each value came from.

use kafka_wire::messages::describe_configs_request::DescribeConfigsResource;
use kafka_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_wire::{ErrorCode, StrBytes};
use model::NodeId;

use crate::cluster::{Image, Topic, check_topic_name};
use crate::config::{BrokerSettings, ConfigKey, ConfigSource, EffectiveValue, TOPIC_KEYS};

/// `resource_type` of topics and of brokers.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// Type and documentation are told from this version on.
const TYPE_VERSION_MIN: i16 = 3;

/// Describes each resource of a request to the broker with this id.
pub(crate) fn describe(
    image: &Image,
    settings: &BrokerSettings,
    broker: NodeId,
    version: i16,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let description = Description {
        image,
        settings,
        broker,
        with_type: version >= TYPE_VERSION_MIN,
        with_synonyms: request.include_synonyms,
        with_documentation: version >= TYPE_VERSION_MIN && request.include_documentation,
    };
    let results = request.resources.iter().map(|resource| description.resource(resource));
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// What is asked for of every resource.
struct Description<'a> {
    image: &'a Image,
    settings: &'a BrokerSettings,
    broker: NodeId,
    with_type: bool,
    with_synonyms: bool,
    with_documentation: bool,
}

impl Description<'_> {
    fn resource(&self, resource: &DescribeConfigsResource) -> DescribeConfigsResult {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let configs = match resource.resource_type {
            TOPIC => self.topic(resource),
            BROKER => self.broker(resource),
            other => {
                Err((ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}")))
            }
        };
        match configs {
            Ok(configs) => result.with_error_message(None).with_configs(configs),
            Err((code, message)) => result
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(message))),
        }
    }

    fn topic(
        &self,
        resource: &DescribeConfigsResource,
    ) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
        let topic = find_topic(self.image, &resource.resource_name)?;
        let asked = TOPIC_KEYS.iter().filter(|key| is_asked(resource, key));
        Ok(asked
            .map(|key| {
                let values = topic.config.effective(key, self.settings);
                self.entry(key, &values).with_read_only(false)
            })
            .collect())
    }

    /// The empty name stands for all brokers, of which nothing is set at run time.
    fn broker(
        &self,
        resource: &DescribeConfigsResource,
    ) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
        let name = resource.resource_name.as_str();
        check_broker(self.broker, name)?;
        if name.is_empty() {
            return Ok(Vec::new());
        }
        let asked = self.settings.effective().filter(|(key, _)| is_asked(resource, key));
        // Settings are given at start and never change while the broker runs.
        Ok(asked.map(|(key, values)| self.entry(&key, &values).with_read_only(true)).collect())
    }

    fn entry(&self, key: &ConfigKey, values: &[EffectiveValue]) -> DescribeConfigsResourceResult {
        let in_force = values.first();
        let text = |value: &EffectiveValue| StrBytes::from_string(value.value.clone());
        let source = in_force.map_or(ConfigSource::Default, |value| value.source);
        let synonyms = if self.with_synonyms { values } else { &[] };
        let synonyms = synonyms.iter().filter_map(|value| synonym(key, value));
        let documentation =
            self.with_documentation.then(|| StrBytes::from_static_str(key.documentation));
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(key.name))
            .with_value(in_force.map(text))
            .with_config_source(source.wire())
            .with_synonyms(synonyms.collect())
            .with_config_type(if self.with_type { key.kind.wire() } else { 0 })
            .with_documentation(documentation)
    }
}

/// The topic of a resource.
pub(super) fn find_topic<'a>(
    image: &'a Image,
    name: &str,
) -> Result<&'a Topic, (ErrorCode, String)> {
    check_topic_name(name)
        .map_err(|error| (ErrorCode::InvalidTopicException, error.to_string()))?;
    let topic = image.topic(name).ok_or_else(|| {
        let message = "This server does not host this topic-partition.".to_owned();
        (ErrorCode::UnknownTopicOrPartition, message)
    })?;
    Ok(topic)
}

/// Is it this broker, or all of them?
pub(super) fn check_broker(broker: NodeId, name: &str) -> Result<(), (ErrorCode, String)> {
    if name.is_empty() || name.parse::<i32>().ok() == Some(broker.get()) {
        return Ok(());
    }
    let message =
        format!("Unexpected broker id, expected {broker} or empty string, but received {name}");
    Err((ErrorCode::InvalidRequest, message))
}

/// A value under the name that it was given by: a topic's defaults have the broker's names.
fn synonym(key: &ConfigKey, value: &EffectiveValue) -> Option<DescribeConfigsSynonym> {
    let name = match value.source {
        ConfigSource::Topic => key.name,
        ConfigSource::StaticBroker | ConfigSource::Default => key.broker_name()?,
    };
    Some(
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value.value.clone())))
            .with_source(value.source.wire()),
    )
}

/// No list, and an empty one, ask for everything.
fn is_asked(resource: &DescribeConfigsResource, key: &ConfigKey) -> bool {
    match &resource.configuration_keys {
        None => true,
        Some(names) => names.is_empty() || names.iter().any(|name| **name == *key.name),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
