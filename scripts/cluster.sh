#!/usr/bin/env bash
# A Ceph cluster of one monitor and one OSD on loopback, with radosgw for S3 if asked. It is made for tests.
#
#   cluster.sh up DIR [--store memstore|bluestore] [--size BYTES] [--auth none|cephx] [--pool NAME] [--port MONPORT]
#                     [--rgw PORT] [--bucket NAME] [--mgr] [--keep] [--osd-only] [-- lines for [global] of ceph.conf...]
#   cluster.sh down DIR [--wipe]
#   cluster.sh kill DIR rgw|osd.0
#
# up      Makes the cluster and a pool, and prints the path of its ceph.conf as the last line. A live cluster is left
#         alone; what is dead of it is started again: a dead radosgw with --rgw, a dead OSD with --osd-only.
#   --store     memstore (in memory, gone with the OSD), or bluestore on a sparse file, which survives kill -9
#   --rgw PORT  radosgw on 127.0.0.1:PORT; DIR/s3.env gets the keys, the endpoint and the bucket
#   --keep      start again on the data of a stopped bluestore cluster instead of anew
# down    Stops exactly the processes that `up` started.
# kill    Kills one of them with -9.
set -euo pipefail
command=${1:-}
die() { echo "cluster.sh: $*" >&2; exit 1; }
[ $# -ge 2 ] || { sed -n '2,16p' "$0" >&2; exit 2; }
DIR=$2; shift 2

# Whether a process is a daemon of the cluster in DIR.
mine() { { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF -- "-c $DIR/ceph.conf"; }

stop_all() {
  local rc=0 n f p sig
  for n in rgw mgr.x osd.0 mon.a; do
    f=$DIR/run/$n.pid; [ -f "$f" ] || continue
    p=$(cat "$f")
    if [ -n "$p" ] && mine "$p"; then
      # A memstore OSD told TERM would write all its data out: it is thrown away anyhow.
      sig=TERM; [ "$n" = osd.0 ] && grep -q '^osd_objectstore = memstore' "$DIR/ceph.conf" && sig=KILL
      [ "$n" = rgw ] && sig=KILL   # radosgw can take tens of seconds on TERM
      kill -$sig "$p"
      for i in $(seq 1 150); do mine "$p" || break; [ "$i" = 100 ] && kill -KILL "$p"; sleep 0.1; done
      if mine "$p"; then echo "cluster.sh: $n ($p) does not die" >&2; rc=1; else echo "stopped $n ($p)" >&2; rm -f "$f"; fi
    else rm -f "$f"; fi
  done
  rm -f "$DIR"/run/*.asok
  return $rc
}

case $command in
  down)
    DIR=$(cd "$DIR" 2>/dev/null && pwd) || exit 0
    exec 9>"$DIR/.lock"; flock -w 60 9 || die "another cluster.sh holds $DIR/.lock"
    rc=0; stop_all || rc=$?
    [ "${1:-}" = --wipe ] && [ $rc = 0 ] && rm -rf "$DIR"/{mon.a,osd0,mgr,log,run,monmap,keyring,mon.keyring,rgw.keyring,s3.env,ceph.conf}
    exit $rc;;
  kill)
    DIR=$(cd "$DIR" && pwd); name=${1:?which one: rgw or osd.0}
    p=$(cat "$DIR/run/$name.pid"); mine "$p" || die "$name is not alive"
    # It is gone when none of its threads is left: only then are its files closed, and their locks free.
    kill -KILL "$p"
    while [ -e "/proc/$p" ]; do
      tasks=("/proc/$p/task/"*)
      [ ${#tasks[@]} -gt 1 ] || ! grep -q '^State:.*[ZX]' "/proc/$p/status" 2>/dev/null || break
      sleep 0.02
    done
    exit 0;;
  up) ;;
  *) die "unknown command $command";;
esac

STORE=memstore SIZE= AUTH=none POOL=cache PORT=33300 RGW= BUCKET=cache MGR= KEEP= OSDONLY=
while [ $# -gt 0 ]; do case $1 in
  --store) STORE=$2; shift 2;; --size) SIZE=$2; shift 2;; --auth) AUTH=$2; shift 2;;
  --pool) POOL=$2; shift 2;; --port) PORT=$2; shift 2;; --rgw) RGW=$2; shift 2;;
  --bucket) BUCKET=$2; shift 2;; --mgr) MGR=1; shift;; --keep) KEEP=1; shift;;
  --osd-only) OSDONLY=1; shift;; --) shift; break;; *) die "unknown option $1";; esac; done
case $STORE in memstore) : "${SIZE:=$((12<<30))}";; bluestore) : "${SIZE:=$((16<<30))}";; *) die "--store $STORE";; esac
T0=$EPOCHREALTIME
say() { echo "[cluster $(awk -v a="$T0" -v b="$EPOCHREALTIME" 'BEGIN{printf "%5.1f",b-a}') s] $*" >&2; }

need=()
command -v ceph-mon >/dev/null || need+=(ceph-mon)
command -v ceph-osd >/dev/null || need+=(ceph-osd)
command -v ceph     >/dev/null || need+=(ceph-common)
[ -z "$MGR" ] || command -v ceph-mgr >/dev/null || need+=(ceph-mgr)
[ -z "$RGW" ] || command -v radosgw  >/dev/null || need+=(radosgw)
if [ ${#need[@]} -gt 0 ]; then
  say "installing ${need[*]}"
  sudo=(); [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq >&2 || true
  # No daemon of the packages may start by itself.
  P=/usr/sbin/policy-rc.d made=
  [ -e $P ] || { printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $P >/dev/null; "${sudo[@]}" chmod +x $P; made=1; }
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${need[@]}" >&2 || made+=failed
  [ "${made#1}" = "$made" ] || "${sudo[@]}" rm -f $P
  case $made in *failed) die "apt-get failed";; esac
fi

mkdir -p "$DIR"; DIR=$(cd "$DIR" && pwd)
exec 9>"$DIR/.lock"; flock -w 60 9 || die "another cluster.sh holds $DIR/.lock"
CONF=$DIR/ceph.conf RUN=$DIR/run
[ ${#DIR} -le 70 ] || die "DIR too long for unix sockets (107 bytes)"
alive() { # NAME: does DIR/run/NAME.pid name a live process of this very cluster?
  local p; p=$(cat "$RUN/$1.pid" 2>/dev/null) || return 1
  [ -n "$p" ] && { tr '\0' ' ' <"/proc/$p/cmdline"; } 2>/dev/null | grep -qF -- "$CONF"
}
C() { timeout 40 ceph -c "$CONF" "$@" 9>&-; }
start_osd() {
  # 9>&-: a daemon must not inherit the lock
  ceph-osd -c "$CONF" -i 0 --pid-file "$RUN/osd.0.pid" >>"$DIR/log/start.log" 2>&1 9>&-
}
wait_up() {
  for _ in $(seq 1 200); do
    C osd stat 2>/dev/null | grep -q '1 up' && return 0; sleep 0.1
  done; die "osd.0 is not up; see $DIR/log"
}

if [ -n "$OSDONLY" ]; then
  [ -f "$CONF" ] || die "no cluster in $DIR"
  alive osd.0 && die "osd.0 is alive"
  # 'osd stat' may still say up for the dead one: wait until the new one has booted
  start_osd || { tail -n 20 "$DIR/log/start.log" >&2; die "osd.0 does not start"; }
  UP=; for _ in $(seq 1 300); do
    timeout 5 ceph daemon "$RUN/osd.0.asok" status 2>/dev/null 9>&- | grep -q '"state": "active"' && UP=1 && break; sleep 0.1; done
  [ -n "$UP" ] || die "osd.0 does not come back; see $DIR/log"
  say "osd.0 restarted, pid $(cat "$RUN/osd.0.pid")"; echo "$CONF"; exit 0
fi
if alive mon.a && alive osd.0; then
  if [ -n "$RGW" ] && ! alive rgw; then :; else say "already up"; echo "$CONF"; exit 0; fi
else
  stop_all || die "cannot stop the remains of a cluster in $DIR"
  FRESH=1
  [ -n "$KEEP" ] && [ -f "$DIR/osd0/block" ] && FRESH=
  if [ -n "$FRESH" ]; then
    rm -rf "$DIR/mon.a" "$DIR/osd0" "$DIR/mgr" "$DIR/log" "$DIR/s3.env"
    FSID=$(cat /proc/sys/kernel/random/uuid); OSDUUID=$(cat /proc/sys/kernel/random/uuid)
    rm -rf "$RUN"; mkdir -p "$RUN" "$DIR/mon.a" "$DIR/osd0" "$DIR/log"
    cat >"$CONF" <<CONF
[global]
fsid = $FSID
mon_host = [v2:127.0.0.1:$PORT]
auth_cluster_required = $AUTH
auth_service_required = $AUTH
auth_client_required = $AUTH
auth_allow_insecure_global_id_reclaim = false
keyring = $DIR/keyring
run_dir = $RUN
admin_socket = $RUN/\$name.\$pid.\$cctid.asok
log_file = $DIR/log/\$name.log
log_to_stderr = false
err_to_stderr = true
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
public_network = 127.0.0.0/8
ms_bind_ipv6 = false
ms_bind_msgr1 = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
# the caller's own lines: here and again in [osd], whose lines beat [global]'s; the last of a section wins
$(printf '%s\n' "$@")
[mon]
mon_data = $DIR/mon.a
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_data_avail_crit = 1
mon_data_avail_warn = 1
mon_osd_min_down_reporters = 1
[mon.a]
host = localhost
admin_socket = $RUN/mon.a.asok
[osd]
osd_data = $DIR/osd0
osd_objectstore = $STORE
osd_uuid = $OSDUUID
osd_memory_target = 2147483648
memstore_device_bytes = $SIZE
# the default object is one bufferlist, shattered by random 4k overwrites: 1.6-1.75 times slower at QD32
memstore_page_set = true
bluestore_block_create = true
bluestore_block_size = $SIZE
bluestore_block_db_create = false
bluestore_block_wal_create = false
bluestore_fsck_on_mount = false
osd_class_default_list = *
osd_class_load_list = *
osd_class_dir = /usr/lib/x86_64-linux-gnu/rados-classes
osd_scrub_begin_hour = 3
osd_scrub_end_hour = 4
osd_op_num_shards_ssd = 2
osd_op_num_shards_hdd = 2
osd_fast_shutdown = true
# an OSD that got no processor for its read lease (0.8 of 20 s) may wait for a new one for ever: it has no peers
osd_pool_default_read_lease_ratio = 100
# short PG logs: with the default 10000 entries a PG the OSD gets 1.8 times slower once the logs are full
# and trimmed (300k writes in), so that what is measured first looks best
osd_min_pg_log_entries = 50
osd_max_pg_log_entries = 100
osd_target_pg_log_entries_per_osd = 3000
$(printf '%s\n' "$@")
[osd.0]
host = localhost
admin_socket = $RUN/osd.0.asok
[mgr]
mgr_data = $DIR/mgr
[client]
rbd_default_features = 1
[client.rgw]
host = localhost
admin_socket = $RUN/rgw.asok
rgw_frontends = beast endpoint=127.0.0.1:${RGW:-8000} tcp_nodelay=1
rgw_enable_ops_log = false
rgw_enable_usage_log = false
rgw_override_bucket_index_max_shards = 1
rgw_dns_name = 127.0.0.1
rgw_thread_pool_size = 64
rgw_num_rados_handles = 1
# radosgw's own default is 'secure' alone, with which auth none finds no method (-13) and hangs for 300 s
ms_mon_client_mode = secure crc
rgw_init_timeout = 30
client_mount_timeout = 30
CONF
    if [ "$AUTH" = cephx ]; then
      ceph-authtool --create-keyring "$DIR/mon.keyring" --gen-key -n mon. --cap mon 'allow *' >&2
      ceph-authtool --create-keyring "$DIR/keyring" --gen-key -n client.admin \
        --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *' >&2
      ceph-authtool "$DIR/mon.keyring" --import-keyring "$DIR/keyring" >&2
    else : >"$DIR/mon.keyring"; : >"$DIR/keyring"; fi
    monmaptool --create --clobber --fsid "$FSID" --addv a "[v2:127.0.0.1:$PORT]" "$DIR/monmap" >"$DIR/log/start.log" 2>&1
    K=(); [ "$AUTH" = none ] || K=(--keyring "$DIR/mon.keyring")
    ceph-mon -c "$CONF" --mkfs -i a --monmap "$DIR/monmap" "${K[@]}" >>"$DIR/log/start.log" 2>&1 9>&- || die "mon mkfs; see $DIR/log"
  else mkdir -p "$RUN"; fi
  ceph-mon -c "$CONF" -i a --pid-file "$RUN/mon.a.pid" >>"$DIR/log/start.log" 2>&1 9>&- || die "mon; see $DIR/log (port $PORT taken?)"
  say "mon.a up, pid $(cat "$RUN/mon.a.pid")"
  if [ -n "$FRESH" ]; then
    if [ "$AUTH" = cephx ]; then
      ceph-authtool --create-keyring "$DIR/osd0/keyring" --gen-key -n osd.0 >&2
      KEY=$(ceph-authtool -p -n osd.0 "$DIR/osd0/keyring")
      echo "{\"cephx_secret\":\"$KEY\"}" | C osd new "$OSDUUID" -i - >/dev/null
      printf '[osd.0]\nkeyring = %s\n' "$DIR/osd0/keyring" >>"$CONF"
    else C osd new "$OSDUUID" >/dev/null; fi
    ceph-osd -c "$CONF" -i 0 --mkfs --osd-uuid "$OSDUUID" >>"$DIR/log/start.log" 2>&1 9>&- || die "osd mkfs; see $DIR/log"
    say "osd.0 made ($STORE)"
  fi
  start_osd || die "osd; see $DIR/log"
  wait_up
  say "osd.0 up, pid $(cat "$RUN/osd.0.pid")"
  if [ -n "$MGR" ]; then
    mkdir -p "$DIR/mgr"
    [ "$AUTH" = none ] || C auth get-or-create mgr.x mon 'allow profile mgr' osd 'allow *' mds 'allow *' >"$DIR/mgr/keyring"
    ceph-mgr -c "$CONF" -i x --pid-file "$RUN/mgr.x.pid" >>"$DIR/log/start.log" 2>&1 9>&-
    say "mgr.x started"
  fi
  if [ -n "$FRESH" ]; then
    C osd pool create "$POOL" 32 32 >&2
    # not 'rbd pool init'/'application enable': a selfmanaged-snapshot pool needs neither; this only quiets a warning
    C osd pool application enable "$POOL" rbd >/dev/null 2>&1 || true
  fi
  # first I/O waits for the PGs to be active
  printf up | timeout 40 rados -c "$CONF" -p "$POOL" put .cluster-up - 9>&-
  timeout 20 rados -c "$CONF" -p "$POOL" rm .cluster-up 9>&-
  say "pool $POOL takes I/O"
fi
if [ -n "$RGW" ]; then
  sed -i "s/^rgw_frontends = .*/rgw_frontends = beast endpoint=127.0.0.1:$RGW tcp_nodelay=1/" "$CONF"
  [ "$AUTH" = none ] || { C auth get-or-create client.rgw mon 'allow rw' osd 'allow rwx' >"$DIR/rgw.keyring"
    grep -q "rgw.keyring" "$CONF" || sed -i "s|^\[client.rgw\]|&\nkeyring = $DIR/rgw.keyring|" "$CONF"; }
  rm -f "$RUN/rgw.pid"
  radosgw -c "$CONF" -n client.rgw --pid-file "$RUN/rgw.pid" >>"$DIR/log/start.log" 2>&1 9>&-
  # It writes its pid file some time after it has gone to the background.
  UP=; for _ in $(seq 1 400); do
    alive rgw && (exec 3<>"/dev/tcp/127.0.0.1/$RGW") 2>/dev/null && UP=1 && break; sleep 0.1; done
  [ -n "$UP" ] || die "radosgw is not up; see $DIR/log"
  say "radosgw listens on 127.0.0.1:$RGW, pid $(cat "$RUN/rgw.pid")"
  timeout 40 radosgw-admin -c "$CONF" user create --uid=test --display-name=test \
    --access-key=TESTACCESSKEY0000000 --secret-key=testsecretkey000000000000000000000000000 >/dev/null 2>>"$DIR/log/start.log" 9>&- \
    || timeout 40 radosgw-admin -c "$CONF" user info --uid=test >/dev/null 9>&-
  cat >"$DIR/s3.env" <<ENV
export AWS_ACCESS_KEY_ID=TESTACCESSKEY0000000
export AWS_SECRET_ACCESS_KEY=testsecretkey000000000000000000000000000
export AWS_ENDPOINT_URL=http://127.0.0.1:$RGW
export AWS_ENDPOINT=http://127.0.0.1:$RGW
export AWS_REGION=us-east-1
export AWS_DEFAULT_REGION=us-east-1
export AWS_ALLOW_HTTP=true
export S3_BUCKET=$BUCKET
ENV
  # the bucket, with one PUT signed by hand (SigV2; ceph-common brings /usr/bin/python3, no package needed)
  ( . "$DIR/s3.env"; /usr/bin/python3 - "$BUCKET" "$RGW" <<'PY' >&2
import sys, os, hmac, hashlib, base64, http.client, email.utils
b, port = sys.argv[1], int(sys.argv[2]); d = email.utils.formatdate(usegmt=True)
sig = base64.b64encode(hmac.new(os.environ["AWS_SECRET_ACCESS_KEY"].encode(), f"PUT\n\n\n{d}\n/{b}".encode(), hashlib.sha1).digest()).decode()
c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
c.request("PUT", f"/{b}", headers={"Date": d, "Authorization": f"AWS {os.environ['AWS_ACCESS_KEY_ID']}:{sig}"})
r = c.getresponse(); body = r.read()
if r.status != 200: sys.exit(f"bucket {b}: {r.status} {body}")
PY
  )
  say "S3 user and bucket $BUCKET ready: $DIR/s3.env"
fi
say "ready"
echo "$CONF"
