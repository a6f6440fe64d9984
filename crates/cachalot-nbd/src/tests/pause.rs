//! What a connection tells of the time between requests.

use super::*;

/// What a connection told of its pauses.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Option<usize>>>>);

impl Told {
    fn push(&self, event: Option<usize>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(event);
    }

    fn take(&self) -> Vec<Option<usize>> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut told)
    }
}

impl Pause for Told {
    fn begin(&mut self, done: usize) {
        self.push(Some(done));
    }

    fn end(&mut self) {
        self.push(None);
    }
}

#[tokio::test]
async fn a_pause_is_told_of_when_all_is_answered_and_only_then() {
    let told = Told::default();
    let ram = Ram {
        bytes: Mutex::new(vec![0; SIZE]),
        is_read_only: false,
        flushes: Some(Semaphore::new(0)),
    };
    let (mut client, served, _stop) = start_pausing((ram, told.clone()), &Room::new(0), None);
    let (ended, ()) = talk(served, async move {
        skip_handshake(&mut client).await;
        let read = ask(command::READ, 0, 0, 1);
        let (flush, cache) = (ask(command::FLUSH, 0, 0, 0), ask(command::CACHE, 0, 0, 1));
        client.write_all(&read).await.unwrap();
        client.read_exact(&mut [0; 17]).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(told.take(), [Some(0), None, Some(1)]);
        // The flush waits for the third request.
        client.write_all(&flush).await.unwrap();
        client.write_all(&read).await.unwrap();
        client.read_exact(&mut [0; 17]).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(told.take(), [None], "one request is not answered");
        client.write_all(&cache).await.unwrap();
        client.read_exact(&mut [0; 32]).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(told.take(), [Some(3)]);
        // Half a request is no pause.
        client.write_all(&read[..9]).await.unwrap();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(told.take(), [None]);
    })
    .await;
    ended.unwrap();
}
