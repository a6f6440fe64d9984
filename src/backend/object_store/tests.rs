use ::object_store::memory::InMemory;
use futures::executor::block_on;

use super::*;
use crate::backend::contract;

fn open(client: Arc<dyn ObjectStore>) -> ObjectStoreBackend {
    ObjectStoreOptions::default()
        .open_over(client, "some/where", ObjectStoreOpen::ExistingOrNew)
        .unwrap()
}

#[test]
fn it_keeps_the_contract() {
    let backend = Arc::new(open(Arc::new(InMemory::new())));
    block_on(contract::check(async || Arc::clone(&backend) as _)).unwrap();
}
