//! DescribeCluster and ApiVersions: what this cluster is and what it speaks.

use kafka_wire::api_versions::{ApiVersionsFault, ApiVersionsRequest, ApiVersionsResponse};
use kafka_wire::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_wire::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_wire::{ErrorCode, StrBytes};

use super::metadata::{CLUSTER_OPERATIONS, ClientView};
use crate::cluster::Image;

/// `endpoint_type` of brokers and of controllers; the latter have no endpoints here.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub fn describe_cluster(
    image: &Image,
    view: &ClientView<'_>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return refused(
                ErrorCode::MismatchedEndpointType,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
                 type CONTROLLER"
                    .to_owned(),
            );
        }
        other => {
            let message = format!("Unsupported endpoint type {other}");
            return refused(ErrorCode::UnsupportedEndpointType, message);
        }
    }
    let operations =
        if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN };
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_cluster_id(StrBytes::from_string(image.cluster_id_text()))
        .with_controller_id(BrokerId(image.controller().unwrap_or(view.broker).get()))
        .with_brokers(brokers(image))
        .with_cluster_authorized_operations(operations)
}

/// A client that believes to talk to another cluster or broker is told to bootstrap again (KIP-1242).
pub fn api_versions(
    image: &Image,
    view: &ClientView<'_>,
    version: i16,
    request: &ApiVersionsRequest,
) -> ApiVersionsResponse {
    match request.check(version, &image.cluster_id_text(), view.broker.get()) {
        Ok(()) => ApiVersionsResponse::supported(),
        Err(ApiVersionsFault::OtherBroker) => {
            ApiVersionsResponse::failed(ErrorCode::RebootstrapRequired)
        }
        Err(
            ApiVersionsFault::SoftwareName
            | ApiVersionsFault::SoftwareVersion
            | ApiVersionsFault::HalfIdentity,
        ) => ApiVersionsResponse::failed(ErrorCode::InvalidRequest),
    }
}

fn brokers(image: &Image) -> Vec<DescribeClusterBroker> {
    image
        .endpoints()
        .map(|endpoint| {
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(endpoint.broker.get()))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
        })
        .collect()
}

fn refused(code: ErrorCode, message: String) -> DescribeClusterResponse {
    DescribeClusterResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(StrBytes::from_string(message)))
}
