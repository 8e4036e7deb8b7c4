-- The arithmetic of domain/buckets/token_bucket.py, inside Redis: many checks in one call, each of them all or nothing.
--
-- KEYS     the buckets, each once; none at all: a probe, which only returns its correlation id
-- ARGV[1]  a MessagePack array: correlation id, number of specs, the specs, and then for each check:
--          verb, number of requests, and for each request: key number, spec number, cost in units; and behind the requests of
--          LEND     (which has one): lease id, units returned, units kept, units wanted
--          RESERVE  the claims' number, and for each request: kind of claim, microseconds that it lasts
--          SETTLE   the claims' number, and for each request: units that the level may be below zero
--          EXTEND   the claims' number, and for each request: microseconds from now
-- replies  a MessagePack array: correlation id, and for each check: 1 if it was paid, 0 if not, 2 if not but something may come
--          back at any time, 3 if a bucket has too many claims; and for each request: level, microseconds until the level is
--          effective. For LEND also the units that were lent; for SETTLE behind each request's level: what was found, units
--          charged, units returned. For EXTEND only how many claims there are.
--
-- One packed argument and one packed reply: separate arguments and integers take both sides longer to read and write.
--
-- A bucket is one string, `level last spec`, a spec `capacity units_per_token units_per_tick tick_us full_ticks`.
-- `domain/claims/claims.py` says what claims are. Where there are some, `|` and their sums follow, see `sums_format`, and behind
-- another `|` a record of six doubles for each: number, units, end, cost, kind, microseconds: first those that have not ended, in
-- the order of their ends, then the others. A check needs the sums alone, and changes nothing behind them: there may be thousands.
-- A value that is not a bucket counts as an absent one: full, and replaced by the first check that is paid.
-- Numbers are doubles here, and all of them stay below 2^53. They are written with %d, because Lua's own conversion keeps only
-- 14 digits.
local TAKE, PEEK, REFUND, RESET, LEND, RESERVE, SETTLE, EXTEND = 0, 1, 2, 3, 4, 5, 6, 7
local CHARGE, RELEASE, HOLD, ENDED, LOAN = 1, 2, 3, 4, 5 -- the kinds of claims, as in `domain/claims/claim.py`
local RECORD, RECORD_BYTES = '<dddddd', 48 -- of one claim
local LONGEST_HEAD = 512 -- what stands before the records is shorter
local LENT_US = 2500000 -- how long a loan counts; the process that has it stops using it half a second earlier (lease.py)
local MAX_LOANS = 64 -- of one bucket; each makes its value longer
local MAX_CLAIMS = 10000
local KEPT_US = 600000000 -- how long a reservation that ended unsettled is kept
local MAX_UNITS = 2 ^ 52

local argv = cmsgpack.unpack(ARGV[1])
local reply = { argv[1] }
if #KEYS == 0 then
  return cmsgpack.pack(reply)
end

local floor, ceil, fmod, min, max = math.floor, math.ceil, math.fmod, math.min, math.max
local match, format, find, call = string.match, string.format, string.find, redis.call
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local values = call('MGET', unpack(KEYS)) -- a key of another type reads as absent, as MGET has it
-- %d takes half the time of %.0f, but is limited to a C `long`, which has 32 bits on small machines.
local whole = format('%d', 2 ^ 52) == '4503599627370496' and '%d' or '%.0f'
local value_format = whole .. ' ' .. whole .. ' %s'
-- Fields of `claims` below; and the second after which the key may expire.
local sums_format = '|' .. string.rep(whole .. ' ', 10)
local pack, read, sub = struct.pack, struct.unpack, string.sub

local function parse_spec(text)
  local capacity, per_token, per_tick, tick, full = match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not capacity then
    return nil
  end
  local spec = {
    text = text, capacity = tonumber(capacity), per_token = tonumber(per_token), per_tick = tonumber(per_tick),
    tick = tonumber(tick), full = tonumber(full), this_tick = 0, next_tick = 0,
  }
  if min(spec.per_token, spec.per_tick, spec.tick) <= 0 then
    return nil
  end
  spec.this_tick, spec.next_tick = floor(now / spec.tick), ceil(now / spec.tick)
  return spec
end

-- The buckets that this call has read. `bucket.spec` is nil if the bucket is absent; `bucket.expiry` is the second after which
-- the stored key may expire, false if it is not known.
local buckets = {}

local function bucket_of(key)
  local bucket = buckets[key]
  if bucket then
    return bucket
  end
  local value = values[key]
  local level, last, text, from = 0, 0, nil, nil
  if value then
    level, last, from = match(value, '^(%-?%d+) (%d+) ()')
    text = from and from <= #value and sub(value, from, from + LONGEST_HEAD) or nil
  end
  -- All fields at once: a table that grows field by field is copied three times. Adding 0 converts faster than `tonumber`.
  bucket = {
    level = (level or 0) + 0, last = (last or 0) + 0, text = text, spec = nil, changed = false, expiry = nil,
    value = value, from = from,
  }
  buckets[key] = bucket
  return bucket
end

local function refill(spec, level, last)
  local elapsed = spec.this_tick - last
  if elapsed <= 0 then
    if -elapsed <= spec.full then
      return min(level, spec.capacity), last
    end
    return min(level, spec.capacity), spec.next_tick
  end
  level = level + elapsed * spec.per_tick
  if level >= spec.capacity then
    return spec.capacity, spec.next_tick
  end
  return level, spec.this_tick
end

local function convert_level(old, new, level, last)
  local part = fmod(level, old.per_token)
  if part < 0 then -- debt: tokens are rounded down
    part = part + old.per_token
  end
  local tokens = (level - part) / old.per_token
  local part_units = max(0, floor(part / old.per_token * new.per_token) - 1)
  local anchor = max(last * old.tick, now)
  return max(-MAX_UNITS, min(new.capacity, tokens * new.per_token + part_units)), ceil(anchor / new.tick)
end

local function convert(old, new, level, last)
  level, last = refill(old, level, last)
  return convert_level(old, new, level, last)
end

-- Claims: what was lent, reserved or is held counts against the capacity, so that level and claims together never exceed it.
-- `records` are those that have not ended, `active` in number, the one that ends first comes first; `ended` are kept for late
-- settlements. `hard` are the units that loans and holds keep whatever happens, `soft` those that may come back of reservations.
-- What reservations have given way is only summed up, as `owed`, until one of them is settled: the record `giving`, counted from
-- zero, gives first. `loans` and `holds` are numbers of claims, `releasing` is that of those that come back by themselves. `set` is
-- the latest instant from which an end was counted, `latest` the end of the last active one, if that is known. `stored` are the
-- bytes before the records in the stored value, if these are as they are stored.
--
-- The records are left in the stored `value`, from its byte `from` on, until they are needed. While claims come and go in the course
-- of a call, `chunks` has them in place of `records`, some in each: a long text that is made anew for each claim would keep the
-- collector busy.

local function new_claims()
  return {
    records = '', ended = '', active = 0, hard = 0, soft = 0, owed = 0, giving = 0, loans = 0, holds = 0, releasing = 0,
    set = 0, looked = false, stored = false,
  }
end

local function is_hard(kind)
  return kind == LOAN or kind == HOLD
end

local function is_empty(claims)
  return claims.active == 0 and claims.ended == ''
end

-- Return the number, units, end, cost, kind and duration of a claim, counted from zero.
local function record(records, nth)
  return read(RECORD, records, nth * RECORD_BYTES + 1)
end

local function end_of(records, nth)
  return (read('<d', records, nth * RECORD_BYTES + 17))
end

local function sum_up(claims, units, kind, sign)
  if is_hard(kind) then
    claims.hard = claims.hard + sign * units
  else
    claims.soft = claims.soft + sign * units
    if kind == RELEASE then
      claims.releasing = claims.releasing + sign
    end
  end
  if kind == LOAN then
    claims.loans = claims.loans + sign
  elseif kind == HOLD then
    claims.holds = claims.holds + sign
  end
end

-- Return all records in one text.
local function flat(claims)
  if claims.chunks then
    claims.records, claims.chunks = table.concat(claims.chunks), nil
  elseif not claims.records then
    claims.records = sub(claims.value, claims.from, claims.from + claims.active * RECORD_BYTES - 1)
  end
  return claims.records
end

-- Return the records in chunks: of many claims there are about as many as each has records.
local function chunked(claims)
  local chunks = claims.chunks
  if not chunks then
    chunks = {}
    local source, from = claims.records or claims.value, claims.records and 1 or claims.from
    local last = from + claims.active * RECORD_BYTES - 1
    claims.chunk_bytes = max(16, ceil(math.sqrt(claims.active))) * RECORD_BYTES
    for at = from, last, claims.chunk_bytes do
      chunks[#chunks + 1] = sub(source, at, min(at + claims.chunk_bytes - 1, last))
    end
    claims.chunks, claims.records = chunks, nil
  end
  return chunks
end

-- Return the number of records before a chunk.
local function before(chunks, chunk)
  local bytes = 0
  for nth = 1, chunk - 1 do
    bytes = bytes + #chunks[nth]
  end
  return bytes / RECORD_BYTES
end

-- Return when one of the active claims ends, the first if `nth` is 0, the last if it is `active - 1`.
local function active_end(claims, nth)
  if claims.chunks then
    local chunk = claims.chunks[nth == 0 and 1 or #claims.chunks]
    return end_of(chunk, nth == 0 and 0 or #chunk / RECORD_BYTES - 1)
  end
  if claims.records then
    return end_of(claims.records, nth)
  end
  return (read('<d', claims.value, claims.from + nth * RECORD_BYTES + 16))
end

-- Write into the records what the soft claims have given way: the one that ends first before the others.
local function give_way(claims)
  local owed, nth, parts = claims.owed, claims.giving, {}
  if owed == 0 then
    return
  end
  local records = flat(claims)
  local rest = ''
  parts[1] = sub(records, 1, nth * RECORD_BYTES)
  while owed > 0 and nth < claims.active do
    local number, units, ends, cost, kind, ttl = record(records, nth)
    if not is_hard(kind) then
      local by = min(owed, units)
      units, owed = units - by, owed - by
      if units > 0 then
        rest = pack(RECORD, number, units, ends, cost, kind, ttl)
        break
      end
    end
    parts[#parts + 1] = pack(RECORD, number, units, ends, cost, kind, ttl)
    nth = nth + 1
  end
  claims.giving, claims.owed, claims.stored = nth, 0, false
  parts[#parts + 1] = rest
  claims.records = table.concat(parts) .. sub(records, nth * RECORD_BYTES + #rest + 1)
end

-- Let soft claims give way to a level.
local function shrink(claims, spec, level)
  local over = min(claims.soft, level + claims.hard + claims.soft - spec.capacity)
  if over > 0 then
    claims.soft, claims.owed = claims.soft - over, claims.owed + over
  end
end

-- Insert a packed claim that ends before others.
local function insert_between(claims, packed, ends)
  give_way(claims)
  local chunks = chunked(claims)
  local at = #chunks
  while at > 1 and end_of(chunks[at], 0) > ends do
    at = at - 1
  end
  local chunk = chunks[at]
  local low, high = 0, #chunk / RECORD_BYTES
  while low < high do
    local middle = floor((low + high) / 2)
    if end_of(chunk, middle) <= ends then
      low = middle + 1
    else
      high = middle
    end
  end
  local cut = low * RECORD_BYTES
  chunk = sub(chunk, 1, cut) .. packed .. sub(chunk, cut + 1)
  chunks[at] = chunk
  if claims.giving > 0 then
    claims.giving = min(claims.giving, before(chunks, at) + low)
  end
  if #chunk > 2 * claims.chunk_bytes then
    chunks[at] = sub(chunk, 1, claims.chunk_bytes)
    table.insert(chunks, at + 1, sub(chunk, claims.chunk_bytes + 1))
  end
end

-- Insert a claim in the order of ends, behind those that end with it.
local function insert(claims, number, units, ends, cost, kind, ttl)
  local packed, latest = pack(RECORD, number, units, ends, cost, kind, ttl), claims.latest
  if not latest then
    latest = claims.active > 0 and active_end(claims, claims.active - 1) or ends
    claims.latest = latest
  end
  if latest > ends then
    insert_between(claims, packed, ends)
  else -- as most
    local chunks = chunked(claims)
    local at = #chunks
    if at > 0 and #chunks[at] < claims.chunk_bytes then
      chunks[at] = chunks[at] .. packed
    else
      chunks[at + 1] = packed
    end
    claims.latest = ends
  end
  claims.active, claims.set, claims.stored = claims.active + 1, max(claims.set, now), false
  sum_up(claims, units, kind, 1)
end

local function room_of(claims, spec)
  return claims and max(0, spec.capacity - claims.hard) or spec.capacity
end

-- Return which of some records has a packed number, counted from zero; nil if none has.
local function find_record(records, wanted, loan)
  local from = 1
  while true do
    local at = find(records, wanted, from, true)
    if not at then
      return nil
    end
    local nth = (at - 1) / RECORD_BYTES
    if nth == floor(nth) and (read('<d', records, at + 32) == LOAN) == loan then
      return nth
    end
    from = at + 1
  end
end

-- Return the chunk of an active claim, and its place there, counted from zero; nil if there is none.
local function find_claim(claims, number, loan)
  local wanted, chunks = pack('<d', number), chunked(claims)
  for at = 1, #chunks do
    local nth = find_record(chunks[at], wanted, loan)
    if nth then
      return at, nth
    end
  end
  return nil
end

-- Remove an active claim, and return its units, end, cost, kind and duration; nil if there is none. `at` and `nth` are where it was
-- found a moment ago; nil if it was not looked for.
local function remove(claims, number, loan, at, nth)
  give_way(claims)
  local chunks = chunked(claims)
  local chunk = at and chunks[at]
  local there, units, ends, cost, kind, ttl
  if chunk and #chunk > nth * RECORD_BYTES then
    there, units, ends, cost, kind, ttl = record(chunk, nth)
  end
  if there ~= number then
    at, nth = find_claim(claims, number, loan)
    if not at then
      return nil
    end
    chunk = chunks[at]
    there, units, ends, cost, kind, ttl = record(chunk, nth)
  end
  local cut = nth * RECORD_BYTES
  if at == #chunks then
    claims.latest = nil
  end
  if claims.giving > 0 and before(chunks, at) + nth < claims.giving then
    claims.giving = claims.giving - 1
  end
  if #chunk == RECORD_BYTES then
    table.remove(chunks, at)
  else
    chunks[at] = sub(chunk, 1, cut) .. sub(chunk, cut + RECORD_BYTES + 1)
  end
  claims.active, claims.stored = claims.active - 1, false
  sum_up(claims, units, kind, -1)
  return units, ends, cost, kind, ttl
end

-- Let no claim last longer than it was given for: the clock has stepped back. Return whether one seemed to.
local function pull_back(claims)
  give_way(claims)
  local old, pulled, count = flat(claims), false, claims.active
  claims.latest = nil
  claims.records, claims.active, claims.hard, claims.soft = '', 0, 0, 0
  claims.loans, claims.holds, claims.releasing = 0, 0, 0
  for nth = 0, count - 1 do
    local number, units, ends, cost, kind, ttl = record(old, nth)
    pulled = pulled or ends > now + ttl
    insert(claims, number, units, min(ends, now + ttl), cost, kind, ttl)
  end
  claims.giving, claims.set = 0, now
  return pulled
end

-- Read the sums of a value with claims. `bucket.text` is '|' from then on, which is the text of no spec.
local function read_claims(bucket)
  if bucket.claims then
    return true
  end
  local text, hard, soft, owed, giving, active, loans, holds, releasing, set, second, from = match(
    bucket.text, '^([^|]+)|(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)  *|()'
  )
  local spec = text and parse_spec(text)
  from = spec and from + bucket.from - 1 -- in the value
  local bytes = spec and #bucket.value - from + 1
  local cut = spec and from + active * RECORD_BYTES
  if not spec or bytes <= 0 or fmod(bytes, RECORD_BYTES) ~= 0 or cut > #bucket.value + 1 then
    return false
  end
  local claims = {
    value = bucket.value, from = from, ended = sub(bucket.value, cut), active = active + 0, hard = hard + 0,
    soft = soft + 0, owed = owed + 0, giving = giving + 0, loans = loans + 0, holds = holds + 0,
    releasing = releasing + 0, set = set + 0, looked = false, stored = from - 1,
  }
  bucket.text, bucket.spec, bucket.claims, bucket.expiry = '|', spec, claims, second + 0
  if now < claims.set then
    bucket.moved = pull_back(claims)
  end
  return true
end

-- Return the state of a bucket when the first of its claims has just ended; `owed` as in `claims`. And what came back.
local function fill_past(spec, level, last, hard, soft, owed, units, ends, kind)
  ends = ceil(ends / spec.tick)
  if ends > last then
    level, last = min(max(0, spec.capacity - hard), level + (ends - last) * spec.per_tick), ends
  end
  local over = min(soft, level + hard + soft - spec.capacity)
  if over > 0 then
    soft, owed = soft - over, owed + over
  end
  local back = 0
  if is_hard(kind) then
    hard = hard - units
    if kind == HOLD then
      back = units
    end
  else
    local left = max(0, units - owed)
    owed, soft = owed - (units - left), soft - left
    if kind == RELEASE then
      back = left
    end
  end
  return min(level + back, max(level, spec.capacity - hard, 0)), last, hard, soft, owed, back
end

-- Do what `refill` does for a bucket with claims, end by end.
local function advance(spec, level, last, claims)
  local tick, over, left = spec.this_tick, 0, nil
  local any = claims.active > 0 and ceil(active_end(claims, 0) / spec.tick) <= tick
  local records = any and flat(claims)
  while any and over < claims.active and ceil(end_of(records, over) / spec.tick) <= tick do
    local number, units, ends, cost, kind, ttl = record(records, over)
    sum_up(claims, 0, kind, -1)
    local back
    level, last, claims.hard, claims.soft, claims.owed, back =
      fill_past(spec, level, last, claims.hard, claims.soft, claims.owed, units, ends, kind)
    if not is_hard(kind) then
      left = left or {}
      left[#left + 1] = pack(RECORD, number, back, ends, cost, ENDED, ttl)
    end
    over = over + 1
  end
  if over > 0 then
    claims.records, claims.active = sub(records, over * RECORD_BYTES + 1), claims.active - over
    claims.ended, claims.giving = claims.ended .. (left and table.concat(left) or ''), max(0, claims.giving - over)
    claims.stored = false
  end
  local room, elapsed = room_of(claims, spec), tick - last
  if elapsed <= 0 then
    level = min(level, room)
    if -elapsed > spec.full then
      last = spec.next_tick
    end
  else
    level, last = level + elapsed * spec.per_tick, tick
    if level >= room then
      level, last = room, spec.next_tick
    end
  end
  shrink(claims, spec, level)
  local forgotten = 0
  while forgotten < #claims.ended and end_of(claims.ended, forgotten / RECORD_BYTES) + KEPT_US <= now do
    forgotten = forgotten + RECORD_BYTES
  end
  if forgotten > 0 then
    claims.ended, claims.stored = sub(claims.ended, forgotten + 1), false
  end
  return level, last
end

-- Return the tick at which a bucket will have so many units if no call takes from it; claims that end until then help.
local function reaches(spec, level, last, claims, units)
  local hard, soft, owed = claims.hard, claims.soft, claims.owed
  local nth, count = 0, hard == 0 and claims.releasing == 0 and 0 or claims.active
  local records = count > 0 and flat(claims)
  while nth < count do
    local _, back, ends, _, kind = record(records, nth)
    local enough = units <= max(0, spec.capacity - hard)
    if enough and last + max(0, ceil((units - level) / spec.per_tick)) <= ceil(ends / spec.tick) then
      break
    end
    level, last, hard, soft, owed = fill_past(spec, level, last, hard, soft, owed, back, ends, kind)
    nth = nth + 1
  end
  return last + max(0, ceil((units - level) / spec.per_tick))
end

local function convert_claims(old, new, claims)
  give_way(claims)
  local most = (MAX_UNITS - fmod(MAX_UNITS, new.per_token)) / new.per_token
  local actives = claims.active
  local records, parts = flat(claims) .. claims.ended, {}
  claims.hard, claims.soft, claims.loans, claims.holds, claims.releasing = 0, 0, 0, 0, 0
  for nth = 0, #records / RECORD_BYTES - 1 do
    local number, units, ends, cost, kind, ttl = record(records, nth)
    local part = fmod(units, old.per_token)
    local tokens = (units - part) / old.per_token
    if is_hard(kind) and part > 0 then -- what is kept is rounded up, what may come back is rounded down
      tokens = tokens + 1
    end
    units = min(new.capacity, tokens * new.per_token)
    tokens = (cost - fmod(cost, old.per_token)) / old.per_token
    cost = tokens > most and MAX_UNITS or tokens * new.per_token
    if nth < actives then
      sum_up(claims, units, kind, 1)
    end
    parts[#parts + 1] = pack(RECORD, number, units, ends, cost, kind, ttl)
  end
  records = table.concat(parts)
  claims.records, claims.ended = sub(records, 1, actives * RECORD_BYTES), sub(records, actives * RECORD_BYTES + 1)
  claims.giving, claims.stored = 0, false
end

-- Do what `look` does for a bucket with claims. The result is kept in the bucket, for later checks of this call.
local function look_claimed(bucket, spec)
  local old, claims, moved = bucket.spec, bucket.claims, bucket.moved or false
  if claims.looked and old.text == spec.text then -- once in a call, in which no time passes
    return bucket.level, bucket.last, moved
  end
  claims.looked = old.text == spec.text -- else ends and instants are others by the new rule's ticks
  local level, last = advance(old, bucket.level, bucket.last, claims)
  if old.text ~= spec.text then
    level, last = convert_level(old, spec, level, last)
    convert_claims(old, spec, claims)
    level = min(level, room_of(claims, spec))
    shrink(claims, spec, level)
    moved = true
  end
  moved = moved or last < bucket.last
  bucket.level, bucket.last, bucket.spec, bucket.moved = level, last, spec, moved
  if is_empty(claims) then
    bucket.claims, bucket.text = nil, spec.text
  end
  return level, last, moved
end

-- Settle a process's loan, after `look`: the refill until now counts all of it as lent. What is returned goes back into the
-- bucket, what is kept stays lent, the rest was spent. A loan that has ended here is worth nothing any more: returning it
-- could mint tokens; for what the process keeps of it all the same, room is made in the bucket.
-- Returns the level, what is kept, and whether there was a loan.
local function settle_loan(bucket, spec, level, lease_id, returned, kept)
  local claims = bucket.claims or new_claims()
  bucket.claims = claims
  local had = remove(claims, lease_id, true)
  local room = room_of(claims, spec)
  local back = min(returned, had or 0)
  kept = had and min(kept, had - back) or min(kept, room)
  level = min(level + back, max(0, room - kept))
  return level, kept, had ~= nil
end

-- Lend what is wanted: whole tokens, at most half of what is left, and to all processes together at most half of the capacity.
local function lend(bucket, spec, level, lease_id, kept, wanted)
  local claims = bucket.claims
  local units = min(wanted, floor(level / 2), floor(spec.capacity / 2) - claims.hard - kept)
  units = max(0, units - fmod(units, spec.per_token))
  if claims.loans >= MAX_LOANS then
    units = 0
  end
  if kept + units > 0 then
    insert(claims, lease_id, kept + units, now + LENT_US, 0, LOAN, LENT_US)
  end
  shrink(claims, spec, level - units)
  return level - units, units
end

-- Return the tick from which a bucket counts on once it is paid from: if this tick would have filled it, the next one.
-- What flows in during this tick finds room where soft claims give way.
local function anchor_after_payment(bucket, spec, level, last)
  if spec.tick == 1 then
    return last
  end
  local claims, room = bucket.claims, room_of(bucket.claims, spec)
  if claims then
    shrink(claims, spec, min(room, level + spec.per_tick))
  end
  if level + spec.per_tick <= room then
    return last
  end
  return max(last, spec.next_tick)
end

-- Return the level now, the tick from which it counts on, and whether even a denial must write them: if a clock that stepped
-- back, or a changed rule, made the bucket begin anew.
local function look(bucket, spec)
  if bucket.text == spec.text then
    local level, anchor = refill(spec, bucket.level, bucket.last)
    return level, anchor, anchor < bucket.last
  end
  if bucket.claims or bucket.text and find(bucket.text, '|', 1, true) and read_claims(bucket) then
    return look_claimed(bucket, spec)
  end
  local old = bucket.text and parse_spec(bucket.text)
  if old then
    local level, anchor = convert(old, spec, bucket.level, bucket.last)
    return level, anchor, true
  end
  bucket.text = nil
  return spec.capacity, spec.next_tick, false
end

-- Look without changing what is kept of a bucket with claims, for calls that must leave it as it is.
local function look_only(bucket, spec)
  if bucket.claims or bucket.text and find(bucket.text, '|', 1, true) and read_claims(bucket) then
    local copy = {}
    for name, value in pairs(bucket) do
      copy[name] = value
    end
    copy.claims = {}
    for name, value in pairs(bucket.claims) do -- texts and numbers
      copy.claims[name] = value
    end
    bucket = copy
  end
  return look(bucket, spec)
end

-- Return whether a bucket has claims.
local function has_claims(bucket)
  return bucket.claims or bucket.text and find(bucket.text, '|', 1, true) and read_claims(bucket)
end

-- Return the second of the server's clock after which the key may expire: when the bucket is full, plus a tick for the rounding
-- of the division, plus a second of margin, rounded up.
local function expiry(spec, level, last)
  return ceil((last + (spec.capacity - level) / spec.per_tick + 1) * spec.tick / 1000000) + 1
end

local function put(bucket, spec, level, last)
  if bucket.expiry == nil then -- the first change: the bucket is still as it is stored
    bucket.expiry = bucket.text == spec.text and expiry(spec, bucket.level, bucket.last)
  end
  bucket.level, bucket.last, bucket.text, bucket.spec, bucket.changed = level, last, spec.text, spec, true
  if bucket.claims then
    if is_empty(bucket.claims) then
      bucket.claims = nil
    else
      bucket.text, bucket.moved = '|', false
    end
  end
end

local specs = {}
local at = 2 + argv[2]
for i = 3, at do
  specs[i - 2] = parse_spec(argv[i])
end

-- Return the microseconds until a level is effective; see `BucketLevel` in bucket_request.py. If claims must end before so many
-- units are there, that is later or earlier.
local function effective_in(bucket, spec, level, last, units)
  if bucket.claims and level < units then
    last = reaches(spec, level, last, bucket.claims, units) - ceil((units - level) / spec.per_tick)
  end
  return last * spec.tick - now
end

-- Whether something may come back to a bucket at any time.
local function may_rise(bucket)
  return bucket.claims and bucket.claims.active > bucket.claims.loans
end

-- LEND: settle the loan, pay the cost, and lend what is wanted if it was paid.
local function take_and_borrow(from, n)
  local bucket, spec = bucket_of(argv[from + 1]), specs[argv[from + 2]]
  local cost, lease_id, wanted = argv[from + 3], argv[from + 4], argv[from + 7]
  local level, last, moved = look(bucket, spec)
  local onward = anchor_after_payment(bucket, spec, level, last)
  local kept, settled
  level, kept, settled = settle_loan(bucket, spec, level, lease_id, argv[from + 5], argv[from + 6])
  local paid = level >= cost
  local units
  level, units = lend(bucket, spec, paid and level - cost or level, lease_id, kept, paid and wanted or 0)
  if is_empty(bucket.claims) then
    bucket.claims = nil
  end
  if moved or settled or kept + units > 0 or paid and cost > 0 then
    last = onward
    put(bucket, spec, level, last)
  end
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = paid and 1 or may_rise(bucket) and 2 or 0, level, 0, units
  reply[n + 3] = effective_in(bucket, spec, level, last, paid and level or cost)
end

-- SETTLE: charge what a claim really cost, and forget it. A bucket without the claim stays as it is.
local function settle_claim(bucket, spec, number, cost, max_debt)
  local wanted, claims = pack('<d', number), has_claims(bucket) and bucket.claims
  local at, nth
  if claims then
    at, nth = find_claim(claims, number, false)
  end
  if not claims or not (at or find_record(claims.ended, wanted, false)) then
    local level, last = look_only(bucket, spec)
    return level, last, 0, 0, 0
  end
  local level, last = look(bucket, spec)
  local found, back, charged = 1, 0, 0
  local units, _, took, kind = remove(claims, number, false, at, nth)
  if units then
    charged = took
    if kind == HOLD then
      cost = 0
    elseif cost < 0 then
      cost = charged
    end
    if cost < charged then
      back, charged = min(charged - cost, units), cost
    end
  else
    nth = find_record(claims.ended, wanted, false)
    found = 2
    if not nth then -- it was to be forgotten
      put(bucket, spec, level, last)
      return level, last, 0, 0, 0
    end
    local came_back
    _, came_back, _, took = record(claims.ended, nth)
    claims.ended = sub(claims.ended, 1, nth * RECORD_BYTES) .. sub(claims.ended, (nth + 1) * RECORD_BYTES + 1)
    claims.stored = false
    cost, charged = cost < 0 and took or cost, took - came_back
  end
  local owed = max(0, cost - charged)
  local left = max(level - owed, min(level, -max_debt))
  back = min(back, max(0, room_of(bucket.claims, spec) - left))
  if left + back < level then
    last = anchor_after_payment(bucket, spec, level, last)
  end
  put(bucket, spec, left + back, last)
  return left + back, last, found, charged + level - left, back
end

-- EXTEND: let an active claim end later. Returns how many there are: one or none.
local function extend_claim(bucket, spec, number, ttl)
  local claims = has_claims(bucket) and bucket.claims
  local at, nth
  if claims then
    at, nth = find_claim(claims, number, false)
  end
  local ends = at and end_of(chunked(claims)[at], nth)
  if not ends or ceil(ends / bucket.spec.tick) <= bucket.spec.this_tick then
    return 0
  end
  local level, last = look(bucket, spec)
  if now + ttl > ends then
    local units, _, cost, kind = remove(claims, number, false, at, nth)
    insert(claims, number, units, now + ttl, cost, kind, ttl)
  end
  put(bucket, spec, level, last)
  return 1
end

-- Fill a bucket beside its loans, end its holds, and let nothing come back of its reservations.
local function reset_claims(claims)
  local records, parts = flat(claims), {}
  claims.hard, claims.loans, claims.holds, claims.releasing = 0, 0, 0, 0
  for nth = 0, claims.active - 1 do
    local number, units, ends, cost, kind, ttl = record(records, nth)
    if kind ~= HOLD then
      units = kind == LOAN and units or 0
      sum_up(claims, units, kind, 1)
      parts[#parts + 1] = pack(RECORD, number, units, ends, cost, kind, ttl)
    end
  end
  claims.records, claims.active, claims.giving, claims.stored = table.concat(parts), #parts, 0, false
  claims.soft, claims.owed, claims.latest = 0, 0, nil
end

local function claims_on(bucket)
  return bucket.claims and bucket.claims.active + #bucket.claims.ended / RECORD_BYTES or 0
end

-- Return the second after which a key with claims may expire: not before the bucket is full and has none. Until the last of them
-- has ended it fills at least as far as the hard ones leave room now, and then there is room for the rest.
local function claimed_expiry(spec, level, last, claims)
  local latest, kept = claims.active > 0 and active_end(claims, claims.active - 1), 0
  if claims.ended ~= '' then
    kept = end_of(claims.ended, #claims.ended / RECORD_BYTES - 1) + KEPT_US
  end
  if latest then
    local ends = ceil(latest / spec.tick)
    if ends > last then
      level, last = min(room_of(claims, spec), level + (ends - last) * spec.per_tick), ends
    end
    if claims.active > claims.loans + claims.holds then
      kept = max(kept, latest + KEPT_US)
    end
  end
  return max(expiry(spec, level, last), ceil(kept / 1000000) + 1)
end

-- The requests of the current check. The tables are reused, because new ones for each check would cost as much as the arithmetic.
local bucket_at, spec_at, cost_at, level_at, anchor_at, moved_at = {}, {}, {}, {}, {}, {}

local argc, n = #argv, 1
while at < argc do
  local verb, count = argv[at + 1], argv[at + 2]
  at = at + 2
  local beyond = at + 3 * count -- where this check's further arguments begin
  if verb == LEND then
    take_and_borrow(at, n)
    at, n = at + 7, n + 4
  elseif verb == SETTLE then
    local number = argv[beyond + 1]
    n = n + 1
    reply[n] = 1
    for i = 1, count do
      local bucket, spec = bucket_of(argv[at + 1]), specs[argv[at + 2]]
      local level, last, found, charged, back =
        settle_claim(bucket, spec, number, argv[at + 3], argv[beyond + 1 + i])
      reply[n + 1], reply[n + 2] = level, last * spec.tick - now
      reply[n + 3], reply[n + 4], reply[n + 5] = found, charged, back
      at, n = at + 3, n + 5
    end
    at = beyond + 1 + count
  elseif verb == EXTEND then
    local number, extended = argv[beyond + 1], 0
    for i = 1, count do
      extended = extended + extend_claim(bucket_of(argv[at + 1]), specs[argv[at + 2]], number, argv[beyond + 1 + i])
      at = at + 3
    end
    n = n + 1
    reply[n] = extended
    at = beyond + 1 + count
  else
    local paid = 1
    local taking = verb == TAKE or verb == RESERVE
    for i = 1, count do
      local bucket, spec = bucket_of(argv[at + 1]), specs[argv[at + 2]]
      local cost = argv[at + 3]
      local level, anchor, moved
      if verb == PEEK then
        level, anchor = look_only(bucket, spec)
      else
        level, anchor, moved = look(bucket, spec)
      end
      at = at + 3
      if taking and level < cost and paid < 2 then
        paid = 0
      end
      if verb == RESERVE and claims_on(bucket) >= MAX_CLAIMS then
        paid = 3
      end
      bucket_at[i], spec_at[i], cost_at[i] = bucket, spec, cost
      level_at[i], anchor_at[i], moved_at[i] = level, anchor, moved
    end
    n = n + 1
    reply[n] = paid
    local number = verb == RESERVE and argv[beyond + 1]
    for i = 1, count do
      local bucket, spec, level, anchor = bucket_at[i], spec_at[i], level_at[i], anchor_at[i]
      local units = level
      if taking then
        if paid == 1 then
          if spec.tick ~= 1 then
            anchor = anchor_after_payment(bucket, spec, level, anchor)
          end
          level = level - cost_at[i]
          units = level
          local kind = number and argv[beyond + 2 * i]
          if kind and kind > 0 then
            local ttl = argv[beyond + 2 * i + 1]
            bucket.claims = bucket.claims or new_claims()
            insert(bucket.claims, number, cost_at[i], now + ttl, cost_at[i], kind, ttl)
            units = kind == HOLD and spec.capacity or level
          end
          put(bucket, spec, level, anchor)
        else
          units = cost_at[i]
          if moved_at[i] then
            put(bucket, spec, level, anchor)
          end
        end
      elseif verb == REFUND then
        if bucket.text then
          level = min(room_of(bucket.claims, spec), level + cost_at[i])
          if bucket.claims then
            shrink(bucket.claims, spec, level)
          end
          put(bucket, spec, level, anchor)
        end
      elseif verb == RESET then
        if bucket.claims then
          reset_claims(bucket.claims)
        end
        level, anchor = room_of(bucket.claims, spec), spec.next_tick
        if bucket.claims and not is_empty(bucket.claims) then
          put(bucket, spec, level, anchor)
        else
          bucket.text, bucket.spec, bucket.claims, bucket.changed = nil, nil, nil, true
        end
      end
      reply[n + 1], reply[n + 2] = level, anchor * spec.tick - now
      if bucket.claims and taking then
        reply[n + 2] = effective_in(bucket, spec, level, anchor, units)
      end
      n = n + 2
    end
    if number then
      at = beyond + 1 + 2 * count
    end
    if taking and paid == 0 then
      for i = 1, count do
        if may_rise(bucket_at[i]) then
          reply[n - 2 * count] = 2
        end
      end
    end
  end
end

for key = 1, #KEYS do
  local bucket = buckets[key]
  if bucket and bucket.changed then
    local spec = bucket.spec
    if spec then
      local level, last, claims = bucket.level, bucket.last, bucket.claims
      local value, second, same = format(value_format, level, last, spec.text), nil, false
      if claims then
        second = claimed_expiry(spec, level, last, claims)
        local sums = format(
          sums_format, claims.hard, claims.soft, claims.owed, claims.giving, claims.active, claims.loans, claims.holds,
          claims.releasing, claims.set, second
        )
        -- With some space before the records, so that other sums mostly fit in without writing these anew.
        local bytes = #value + #sums + 1
        same = claims.stored and bytes <= claims.stored
        bytes = same and claims.stored or bytes + 31 - fmod(bytes, 32)
        value = value .. sums .. string.rep(' ', bytes - #value - #sums - 1) .. '|'
        if not same then
          value = value .. flat(claims) .. claims.ended
        end
      else
        second = expiry(spec, level, last)
      end
      if same then
        call('SETRANGE', KEYS[key], 0, value)
        if second ~= bucket.expiry then
          call('PEXPIRE', KEYS[key], format(whole, second * 1000 - floor(now / 1000)))
        end
      elseif second == bucket.expiry then
        -- A new expiry takes as long as the write itself. What an earlier release wrote expires a second after it was full,
        -- which is not before this bucket is full: both are full in the same second.
        call('SET', KEYS[key], value, 'KEEPTTL')
      else
        call('SET', KEYS[key], value, 'PX', format(whole, second * 1000 - floor(now / 1000)))
      end
    elseif values[key] then
      call('DEL', KEYS[key])
    end
  end
end
return cmsgpack.pack(reply)
