-- commit: save one record and every index entry of it in one atomic step; or refuse, and change nothing.
--
-- KEYS[1]  hash    the record
-- KEYS[2]  set     all records of the model
-- KEYS[3]  zset    the same, all scores 0: the order by name
-- KEYS[4]  zset    records with a TTL -> when they expire, ms
-- KEYS[5]  -       sentinel of the same hash tag, never written: while a slot moves, the call is refused whole
-- ARGV[1]  bytes   packed plan, a map; all but hash and payload may be missing:
--                    guard    1 = the record must exist, 2 = it must not
--                    moved    the key that the record had before (key migration)
--                    hash     flat list: field, bytes, field, bytes...
--                    partial  true: slots that the plan does not name keep their entries
--                    payload  one for each entry; false = keep what is stored
--                    masks    partial only, a list for each entry: is the part the caller's (true) or the stored one's
--                    keeps    partial only, one for each entry: true = `kept` is the stored one's
--                    dropped  partial only: slots that lose their entry
--                    blind    partial only: true = parts that are not the caller's are unknown to it (else UNREAD)
--                    seen     partial only: flat list of fields that the caller does not name but an entry was made of, and
--                             their bytes (false for none) as it has them; where other bytes are stored, STALE
--                    expire   {'px', ms from now}, {'at', ms}, {'persist'}; missing = leave
--                    shape    the entries follow this packed shape of lib_occupancy, so that no list of them need be kept;
--                             missing: it is
--                    texts    with shape, unless a full save leaves slots of it empty: flat list of entries whose part is a
--                             text: number of the entry, counted from 1, and field
--                    commands what on_save hooks recorded, run last
--                    event    of a model with an event stream: see lib_event
-- ARGV[2]  bytes   packed list of entries (lib_record); of a full save it is the new occupancy to the letter
-- ARGV[3]  string  key of the token under which the reply is kept for a repeat, or ''
--
-- returns  the number of hash fields that are new
-- errors   UNIQUE, EXISTS, MISSING, STALE, UNINDEXED, UNREAD, WRONGTYPE, UNKNOWNKIND: nothing is written. HOOK: the record
--          is saved, a recorded command failed
-- cost     O(fields + entries * log n)
local rk = KEYS[1]
local home = {class = KEYS[2], order = KEYS[3], expiry = KEYS[4]}
local token = ARGV[3]
local before = answered(token)
if before then return before end
LIB_COMMIT
local plan = cmsgpack.unpack(ARGV[1])
local refusal, job = refused_home(), nil
if not refusal then job, refusal = check_commit(rk, plan, ARGV[2]) end
if refusal then return redis.error_reply(refusal) end

local created = write_commit(job)
if expiring > 0 then reap(home) end
local failed = plan.commands and run_recorded(plan.commands, rk, 'saved')
if failed then return remember_error(token, failed) end
return remember(token, created)
