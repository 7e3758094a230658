//! The service behind the proxies: answers an order with the order.

use tonic::{Request, Response, Status};

/// The contract, generated.
pub(crate) mod pb {
    #![expect(unreachable_pub, reason = "generated")]
    ninefold::include_proto!("bench.edge.v1");
}

use pb::order_service_server::{OrderService, OrderServiceServer};
use pb::{PlaceOrderRequest, PlaceOrderResponse};

/// Answers an order with the order.
pub(crate) struct Service;

#[tonic::async_trait]
impl OrderService for Service {
    async fn place_order(&self, request: Request<PlaceOrderRequest>) -> Result<Response<PlaceOrderResponse>, Status> {
        let PlaceOrderRequest { customer, order_id, account, create_time, lines, address, shipping, notes, gift } =
            request.into_inner();
        let answer =
            PlaceOrderResponse { customer, order_id, account, create_time, lines, address, shipping, notes, gift };
        Ok(Response::new(answer))
    }
}

/// Serves until the process is killed, and joins the landscape that its environment names.
pub(crate) async fn run() -> anyhow::Result<()> {
    let app = ninefold::app("order").contract(pb::DESCRIPTOR_SET);
    app.service(OrderServiceServer::new(Service)).run().await?;
    Ok(())
}
