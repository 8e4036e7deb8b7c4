-- The arithmetic of domain/token_bucket.py, inside Redis: many checks in one call, each of them all or nothing.
--
-- KEYS     the buckets, each once; none at all: a probe, which only returns its correlation id
-- ARGV[1]  a MessagePack array: correlation id, number of specs, the specs, and then for each check:
--          verb, number of requests, and for each request: key number, spec number, cost in units;
--          LEND has one request, and behind it: lease id, units returned, units kept, units wanted
-- replies  a MessagePack array: correlation id, and for each check: 1 if it was paid (0 if not), and for each request: level,
--          microseconds until the level is effective; for LEND also the units that were lent
--
-- One packed argument and one packed reply: separate arguments and integers take both sides longer to read and write.
--
-- A bucket is one string, `level last spec`, a spec `capacity units_per_token units_per_tick tick_us full_ticks`.
-- Where units are lent, each loan follows as `|lease_id units end`, in the order of their ends.
-- A value that is not a bucket counts as an absent one: full, and replaced by the first check that is paid.
-- Numbers are doubles here, and all of them stay below 2^53. They are written with %d, because Lua's own conversion keeps only
-- 14 digits.
local TAKE, PEEK, REFUND, RESET, LEND = 0, 1, 2, 3, 4
local LENT_US = 2500000 -- how long a loan counts; the process that has it stops using it half a second earlier (lease.py)
local MAX_LOANS = 64 -- of one bucket; each makes its value longer

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
local value_format, loan_format = whole .. ' ' .. whole .. ' %s', '|%s ' .. whole .. ' ' .. whole

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
  local level, last, text = 0, 0, nil
  if value then
    level, last, text = match(value, '^(%d+) (%d+) (.+)$')
  end
  -- All fields at once: a table that grows field by field is copied three times. Adding 0 converts faster than `tonumber`.
  bucket = { level = (level or 0) + 0, last = (last or 0) + 0, text = text, spec = nil, changed = false, expiry = nil }
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
  local tokens = (level - part) / old.per_token
  local part_units = max(0, floor(part / old.per_token * new.per_token) - 1)
  local anchor = max(last * old.tick, now)
  return min(new.capacity, tokens * new.per_token + part_units), ceil(anchor / new.tick)
end

local function convert(old, new, level, last)
  level, last = refill(old, level, last)
  return convert_level(old, new, level, last)
end

-- Loans: units that a process has borrowed and spends without asking (`lease_table.py`). What is lent counts against the
-- capacity, so that bucket and loans together never hold more than it: no window admits more than that of a bucket without
-- loans. A loan that ends unreported counts as spent.

local function lent(loans)
  local units = 0
  for i = 1, #loans do
    units = units + loans[i].units
  end
  return units
end

local function room_of(bucket, spec)
  return bucket.loans and spec.capacity - lent(bucket.loans) or spec.capacity
end

-- Parse a value with loans. `bucket.text` is '|' from then on, which is the text of no spec.
local function read_loans(bucket)
  if bucket.loans then
    return true
  end
  local text, list = match(bucket.text, '^([^|]+)(|.+)$')
  local spec = text and parse_spec(text)
  if not spec then
    return false
  end
  local loans = {}
  for lease_id, units, ends in string.gmatch(list, '|(%d+) (%d+) (%d+)') do
    -- A loan that seems to last longer was given before the clock stepped back.
    loans[#loans + 1] = { lease_id = lease_id, units = tonumber(units), ends = min(tonumber(ends), now + LENT_US) }
    bucket.moved = bucket.moved or tonumber(ends) > now + LENT_US
  end
  bucket.text, bucket.spec, bucket.loans, bucket.expiry = '|', spec, loans, false
  return true
end

local function text_of(loans)
  local text = ''
  for i = 1, #loans do
    text = text .. format(loan_format, loans[i].lease_id, loans[i].units, loans[i].ends)
  end
  return text
end

-- Do what `refill` does for a bucket with loans, in steps: until a loan ends there is room only for what is not lent. Removes
-- the loans that have ended.
local function refill_lent(spec, level, last, loans)
  local room, tick = spec.capacity - lent(loans), spec.this_tick
  while loans[1] and ceil(loans[1].ends / spec.tick) <= tick do
    local ends = ceil(loans[1].ends / spec.tick)
    if ends > last then
      level, last = min(room, level + (ends - last) * spec.per_tick), ends
    end
    room = room + table.remove(loans, 1).units
  end
  local elapsed = tick - last
  if elapsed <= 0 then
    return min(level, room), -elapsed <= spec.full and last or spec.next_tick
  end
  level = level + elapsed * spec.per_tick
  if level >= room then
    return room, spec.next_tick
  end
  return level, tick
end

-- Return the tick at which a bucket will have so many units if no check takes from it; loans that end until then make room.
local function reach(spec, level, last, loans, units)
  local room = spec.capacity - lent(loans)
  for i = 1, #loans do
    if units <= room then
      break
    end
    local ends = ceil(loans[i].ends / spec.tick)
    if ends > last then
      level, last = min(room, level + (ends - last) * spec.per_tick), ends
    end
    room = room + loans[i].units
  end
  return last + max(0, ceil((units - level) / spec.per_tick))
end

-- Do what `look` does for a bucket with loans. The result is kept in the bucket, for later checks of this call.
local function look_lent(bucket, spec)
  local old, loans, moved = bucket.spec, bucket.loans, bucket.moved or false
  local level, last = refill_lent(old, bucket.level, bucket.last, loans)
  if old.text ~= spec.text then
    level, last = convert_level(old, spec, level, last)
    for i = 1, #loans do
      loans[i].units = min(spec.capacity, ceil(loans[i].units / old.per_token) * spec.per_token)
    end
    level = max(0, min(level, spec.capacity - lent(loans)))
    moved = true
  end
  moved = moved or last < bucket.last
  bucket.level, bucket.last, bucket.spec, bucket.moved = level, last, spec, false
  if #loans == 0 then
    bucket.loans, bucket.text = nil, spec.text
  end
  return level, last, moved
end

-- Settle a process's loan, after `look`: the refill until now counts all of it as lent. What is returned goes back into the
-- bucket, what is kept stays lent, the rest was spent. A loan that has ended here is worth nothing any more: returning it
-- could mint tokens; for what the process keeps of it all the same, room is made in the bucket.
-- Returns the level, what is kept, and whether there was a loan.
local function settle(bucket, spec, level, lease_id, returned, kept)
  local loans, had, others = bucket.loans or {}, nil, 0
  for i = #loans, 1, -1 do
    if loans[i].lease_id == lease_id then
      had = table.remove(loans, i).units
    else
      others = others + loans[i].units
    end
  end
  local back = min(returned, had or 0)
  kept = had and min(kept, had - back) or min(kept, spec.capacity - others)
  bucket.loans = loans
  return max(0, min(level + back, spec.capacity - others - kept)), kept, had ~= nil
end

-- Lend what is wanted: whole tokens, at most half of what is left, and to all processes together at most half of the capacity.
local function lend(bucket, spec, level, lease_id, kept, wanted)
  local loans = bucket.loans
  local units = min(wanted, floor(level / 2), floor(spec.capacity / 2) - lent(loans) - kept)
  units = max(0, units - fmod(units, spec.per_token))
  if #loans >= MAX_LOANS then
    units = 0
  end
  if kept + units > 0 then
    loans[#loans + 1] = { lease_id = lease_id, units = kept + units, ends = now + LENT_US }
  end
  return level - units, units
end

-- Return the tick from which a bucket counts on once it is paid from: if this tick would have filled it, the next one.
local function anchor_after_payment(spec, room, level, last)
  if spec.tick == 1 or level + spec.per_tick <= room then
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
  if bucket.text and find(bucket.text, '|', 1, true) and read_loans(bucket) then
    return look_lent(bucket, spec)
  end
  local old = bucket.text and parse_spec(bucket.text)
  if old then
    local level, anchor = convert(old, spec, bucket.level, bucket.last)
    return level, anchor, true
  end
  bucket.text = nil
  return spec.capacity, spec.next_tick, false
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
  if bucket.loans then
    bucket.text = '|'
  end
end

local specs = {}
local at = 2 + argv[2]
for i = 3, at do
  specs[i - 2] = parse_spec(argv[i])
end

-- Return the microseconds until a level is effective; see `BucketLevel` in bucket_request.py. If loans must end before there is
-- room for a cost, the level is effective later.
local function effective_in(bucket, spec, level, last, cost)
  local late = 0
  if level < cost then
    late = reach(spec, level, last, bucket.loans, cost) - last - ceil((cost - level) / spec.per_tick)
  end
  return (last + late) * spec.tick - now
end

-- LEND: settle the loan, pay the cost, and lend what is wanted if it was paid.
local function take_and_borrow(from, n)
  local bucket, spec = bucket_of(argv[from + 1]), specs[argv[from + 2]]
  local cost, lease_id, wanted = argv[from + 3], format(whole, argv[from + 4]), argv[from + 7]
  local level, last, moved = look(bucket, spec)
  local onward = anchor_after_payment(spec, room_of(bucket, spec), level, last)
  local kept, settled
  level, kept, settled = settle(bucket, spec, level, lease_id, argv[from + 5], argv[from + 6])
  local paid = level >= cost
  local units
  level, units = lend(bucket, spec, paid and level - cost or level, lease_id, kept, paid and wanted or 0)
  if #bucket.loans == 0 then
    bucket.loans = nil
  end
  if moved or settled or kept + units > 0 or paid and cost > 0 then
    last = onward
    put(bucket, spec, level, last)
  end
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = paid and 1 or 0, level, last * spec.tick - now, units
  if bucket.loans and not paid then
    reply[n + 3] = effective_in(bucket, spec, level, last, cost)
  end
end

-- The requests of the current check. The tables are reused, because new ones for each check would cost as much as the arithmetic.
local bucket_at, spec_at, cost_at, level_at, anchor_at, moved_at = {}, {}, {}, {}, {}, {}

local argc, n = #argv, 1
while at < argc do
  local verb, count = argv[at + 1], argv[at + 2]
  if verb == LEND then
    take_and_borrow(at + 2, n)
    at, n = at + 9, n + 4
  else
    local paid = 1
    at = at + 2
    for i = 1, count do
      local bucket, spec = bucket_of(argv[at + 1]), specs[argv[at + 2]]
      local cost = argv[at + 3]
      local level, anchor, moved = look(bucket, spec)
      at = at + 3
      if verb == TAKE and level < cost then
        paid = 0
      end
      bucket_at[i], spec_at[i], cost_at[i] = bucket, spec, cost
      level_at[i], anchor_at[i], moved_at[i] = level, anchor, moved
    end
    n = n + 1
    reply[n] = paid
    for i = 1, count do
      local bucket, spec, level, anchor = bucket_at[i], spec_at[i], level_at[i], anchor_at[i]
      if verb == TAKE then
        if paid == 1 then
          if spec.tick ~= 1 then
            anchor = anchor_after_payment(spec, room_of(bucket, spec), level, anchor)
          end
          level = level - cost_at[i]
          put(bucket, spec, level, anchor)
        elseif moved_at[i] then
          put(bucket, spec, level, anchor)
        end
      elseif verb == REFUND then
        if bucket.text then
          level = min(room_of(bucket, spec), level + cost_at[i])
          put(bucket, spec, level, anchor)
        end
      elseif verb == RESET then
        level, anchor = room_of(bucket, spec), spec.next_tick
        if bucket.loans then
          put(bucket, spec, level, anchor)
        else
          bucket.text, bucket.spec, bucket.changed = nil, nil, true
        end
      end
      reply[n + 1], reply[n + 2] = level, anchor * spec.tick - now
      if bucket.loans and verb == TAKE then
        reply[n + 2] = effective_in(bucket, spec, level, anchor, cost_at[i])
      end
      n = n + 2
    end
  end
end

for key = 1, #KEYS do
  local bucket = buckets[key]
  if bucket and bucket.changed then
    local spec = bucket.spec
    if spec then
      local level, last, loans = bucket.level, bucket.last, bucket.loans
      local value = format(value_format, level, last, spec.text)
      local second
      if loans then
        second = expiry(spec, spec.capacity, reach(spec, level, last, loans, spec.capacity))
        value = value .. text_of(loans)
      else
        second = expiry(spec, level, last)
      end
      if second == bucket.expiry then
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
