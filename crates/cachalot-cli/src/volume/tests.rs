use cachalot::backend::MemoryBackend;

use super::*;
use crate::striped::StripedFile;

const MIB: u64 = 1 << 20;

fn volumes() -> Volumes {
    Volumes::of(Arc::new(MemoryBackend::new()))
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn striped() -> Layout {
    Layout::new(64 << 10, 3, 256 << 10).unwrap()
}

fn file(volumes: &Volumes, volume: &VolumeName, layout: Layout) -> StripedFile {
    StripedFile::new(Arc::clone(volumes.backend()), volume.as_str(), layout)
}

#[tokio::test]
async fn shrinking_and_growing_again_reads_zeros() {
    let volumes = volumes();
    for layout in [striped(), Layout::unstriped(256 << 10).unwrap()] {
        for cut in [0, 1, 100_000, 64 << 10, (1 << 20) - 1, 700_001] {
            let volume = name("v");
            volumes.create(&volume, MIB, layout).await.unwrap();
            let file = file(&volumes, &volume, layout);
            let old = vec![7_u8; 1 << 20];
            file.write(0, old.into()).await.unwrap();
            assert!(volumes.resize(&volume, cut, false).await.is_err());
            assert_eq!(volumes.resize(&volume, cut, true).await.unwrap(), MIB);
            volumes.resize(&volume, MIB, false).await.unwrap();
            let now = file.read(0, MIB).await.unwrap();
            let kept = usize::try_from(cut).unwrap();
            assert!(now[..kept].iter().all(|byte| *byte == 7), "{cut}");
            assert!(now[kept..].iter().all(|byte| *byte == 0), "{cut}");
            volumes.remove(&volume).await.unwrap();
        }
    }
}

#[tokio::test]
async fn old_bytes_do_not_return_after_a_shrink_that_was_interrupted() {
    let volumes = volumes();
    let (volume, layout) = (name("v"), striped());
    let made = volumes.create(&volume, MIB, layout).await.unwrap();
    let file = file(&volumes, &volume, layout);
    file.write(0, vec![7_u8; 1 << 20].into()).await.unwrap();
    // The shrink got as far as its first header.
    let header = Header {
        generation: made.generation + 1,
        size_bytes: 1000,
        residue_end: MIB,
        ..made
    };
    volumes.store_header(&volume, &header).await.unwrap();
    assert!(volumes.info(&volume).await.unwrap().shrink_unfinished);
    volumes.resize(&volume, MIB, false).await.unwrap();
    assert!(!volumes.info(&volume).await.unwrap().shrink_unfinished);
    let now = file.read(0, MIB).await.unwrap();
    assert!(now[..1000].iter().all(|byte| *byte == 7));
    assert!(now[1000..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_header_torn_at_any_byte_leaves_the_old_or_the_new_one() {
    let volumes = volumes();
    let volume = name("v");
    let old = volumes.create(&volume, MIB, striped()).await.unwrap();
    let new = Header {
        generation: 2,
        size_bytes: 2 * MIB,
        ..old
    };
    for copy in 0..2 {
        for torn in 0..=header::COPY_BYTES {
            volumes.store_header(&volume, &old).await.unwrap();
            for (number, offset) in header::COPY_OFFSETS.into_iter().enumerate().take(copy + 1) {
                let len = if number == copy {
                    torn
                } else {
                    header::COPY_BYTES
                };
                if len > 0 {
                    let bytes = vec![new.encode().slice(..len)];
                    let object = volume.header_object().unwrap();
                    write_object(&*volumes.backend, object, offset, bytes)
                        .await
                        .unwrap();
                }
            }
            let found = volumes.load(&volume).await.unwrap();
            assert!(found == old || found == new, "copy {copy}, byte {torn}");
            assert!(copy == 0 || found == new, "byte {torn} of the second copy");
        }
    }
}

#[tokio::test]
async fn removing_takes_what_is_the_volumes_and_nothing_else() {
    let volumes = volumes();
    let layout = striped();
    for text in ["a", "a.b", "a.volume", "ab"] {
        let volume = name(text);
        volumes.create(&volume, MIB, layout).await.unwrap();
        let data = vec![1_u8; 1 << 20].into();
        file(&volumes, &volume, layout)
            .write(0, data)
            .await
            .unwrap();
    }
    assert_eq!(volumes.remove(&name("a")).await.unwrap(), 6);
    let left: Vec<String> = volumes
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|line| line.name.to_string())
        .collect();
    assert_eq!(left, ["a.b", "a.volume", "ab"]);
    for text in ["a.b", "a.volume", "ab"] {
        assert_eq!(volumes.data_numbers(&name(text)).await.unwrap().len(), 6);
    }
    assert!(matches!(
        volumes.remove(&name("a")).await,
        Err(CliError::NoVolume { .. })
    ));
}

#[tokio::test]
async fn data_without_a_header_blocks_a_new_volume_until_it_is_removed() {
    let volumes = volumes();
    let (volume, layout) = (name("v"), striped());
    let data = vec![1_u8; 4096].into();
    file(&volumes, &volume, layout)
        .write(0, data)
        .await
        .unwrap();
    let refused = volumes.create(&volume, MIB, layout).await.unwrap_err();
    assert!(refused.to_string().contains("volume remove"), "{refused}");
    volumes.remove(&volume).await.unwrap();
    volumes.create(&volume, MIB, layout).await.unwrap();
}

#[tokio::test]
async fn a_damaged_volume_is_listed_and_can_be_removed() {
    let volumes = volumes();
    let volume = name("v");
    volumes.create(&volume, MIB, striped()).await.unwrap();
    let object = volume.header_object().unwrap();
    for offset in header::COPY_OFFSETS {
        let noise = vec![vec![0xEE; header::COPY_BYTES].into()];
        write_object(&*volumes.backend, object.clone(), offset, noise)
            .await
            .unwrap();
    }
    assert!(matches!(
        volumes.load(&volume).await,
        Err(CliError::Damaged { .. })
    ));
    assert_eq!(volumes.list().await.unwrap()[0].state, None);
    volumes.remove(&volume).await.unwrap();
    assert!(volumes.list().await.unwrap().is_empty());
}
