//! The OpenAPI 3.1 document. It is generated from [`ROUTES`] and the JSON types.

use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        ContentBuilder, HttpMethod, InfoBuilder, PathItem, PathsBuilder, Ref, Required, ResponseBuilder,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{ArrayBuilder, ObjectBuilder, Type},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use crate::{Body, Method, Permission, ROUTES, Route};

#[derive(OpenApi)]
#[openapi(components(schemas(
    crate::ApiError,
    crate::SetupReply,
    crate::SetupRequest,
    crate::OfferView,
    crate::LoginRequest,
    crate::LoginReply,
    crate::StatusReply,
    crate::TimelineReply,
    crate::PairingCodeReply,
    crate::WitnessRequest,
    crate::EraseRequest,
    crate::EraseDiskRequest,
    crate::VolumeView,
    crate::CreateVolume,
    crate::ImportReply,
    crate::VmView,
    crate::CreateVm,
)))]
struct Schemas;

/// Generates the document. `docs/openapi.json` holds its indented JSON and one newline.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Schemas::openapi();
    document.info = InfoBuilder::new()
        .title("Dyad")
        .version("1")
        .description(Some(
            "The API of a Dyad node. An error is {error, code}: one sentence for people, one stable word for programs.",
        ))
        .build();
    document.servers = None;
    let mut paths = PathsBuilder::new();
    for route in ROUTES {
        paths = paths.path(route.path, PathItem::new(method(route.method), operation(route)));
    }
    document.paths = paths.build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("session", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    document
}

fn method(method: Method) -> HttpMethod {
    match method {
        Method::Get => HttpMethod::Get,
        Method::Post => HttpMethod::Post,
        Method::Put => HttpMethod::Put,
        Method::Delete => HttpMethod::Delete,
    }
}

fn operation(route: &Route) -> utoipa::openapi::path::Operation {
    let mut operation = OperationBuilder::new().operation_id(Some(route.operation)).summary(Some(route.summary));
    if route.path.contains("{name}") {
        let text = ObjectBuilder::new().schema_type(Type::String);
        let name = ParameterBuilder::new()
            .name("name")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(text));
        operation = operation.parameter(name);
    }
    if route.permission == Permission::Session {
        operation = operation.security(SecurityRequirement::new::<_, [String; 0], String>("session", []));
    }
    if let Some((kind, content)) = content(route.request) {
        let body = RequestBodyBuilder::new().content(kind, content).required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    let mut worked = ResponseBuilder::new().description(match route.reply {
        Body::Empty => "Done.",
        Body::WebSocket => "The connection becomes a WebSocket.",
        _ => "The answer.",
    });
    if let Some((kind, content)) = content(route.reply) {
        worked = worked.content(kind, content);
    }
    let error = ContentBuilder::new().schema(Some(Ref::from_schema_name(crate::ApiError::name()))).build();
    let refused = ResponseBuilder::new()
        .description("Refused. Nothing was changed, unless the sentence says that this is not known.")
        .content(JSON, error);
    operation.response(route.status.to_string(), worked.build()).response("default", refused.build()).build()
}

const JSON: &str = "application/json";

fn content(body: Body) -> Option<(&'static str, utoipa::openapi::Content)> {
    let (kind, schema): (_, utoipa::openapi::RefOr<utoipa::openapi::Schema>) = match body {
        Body::Empty | Body::WebSocket => return None,
        Body::Json(name) => (JSON, Ref::from_schema_name(name).into()),
        Body::List(name) => (JSON, ArrayBuilder::new().items(Ref::from_schema_name(name)).into()),
        Body::Events(name) => ("text/event-stream", Ref::from_schema_name(name).into()),
        Body::Raw => ("application/octet-stream", ObjectBuilder::new().schema_type(Type::String).into()),
        Body::Text => ("text/plain", ObjectBuilder::new().schema_type(Type::String).into()),
    };
    Some((kind, ContentBuilder::new().schema(Some(schema)).build()))
}
