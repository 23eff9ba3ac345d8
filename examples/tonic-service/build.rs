//! Makes client and server of the service's description. With a `.proto` file, `tonic-prost-build`
//! does so; this way needs no protoc.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(input)
            .output_type(output)
            .codec_path("tonic_prost::ProstCodec")
    };
    let greet = |name: &str, route: &str| method(name, route, "crate::Greeting", "crate::Greeting");
    let greeter = Service::builder()
        .package("example")
        .name("Greeter")
        .method(greet("greet", "Greet").build())
        .method(greet("greet_often", "GreetOften").server_streaming().build())
        .build();
    let check = method("check", "Check", "crate::HealthCheckRequest", "crate::HealthCheckResponse");
    let health = Service::builder().package("grpc.health.v1").name("Health").method(check.build()).build();
    Builder::new().compile(&[greeter, health]);
}
