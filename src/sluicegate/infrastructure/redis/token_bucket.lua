-- The arithmetic of domain/token_bucket.py, inside Redis: many checks in one call, each of them all or nothing.
--
-- KEYS     the buckets, each once; none at all: a probe, which only echoes
-- ARGV[1]  a MessagePack array: echo, number of shapes, the shapes, and then for each check:
--          verb, number of demands, and for each demand: key number, shape number, cost in units;
--          LEND has one demand, and behind it: holder, units returned, units kept, units wanted
-- replies  a MessagePack array: echo, and for each check: 1 if it was paid (0 if not), and for each demand: level, lead in
--          microseconds; for LEND also the units that were lent
--
-- One packed argument and one packed reply: arguments and integers of their own take both sides longer to read and write.
--
-- A bucket is one string, `level last shape`, a shape `capacity units_per_token units_per_tick tick_us full_ticks`.
-- Where units are lent, each loan follows as `|holder units end`, in the order of their ends.
-- A value that is no bucket counts as an absent one: full, and replaced by the first check that is paid.
-- Numbers are doubles here and all of them stay below 2^53; what is written goes through %d, because Lua's own
-- conversion keeps 14 digits.
local TAKE, PEEK, REFUND, RESET, LEND = 0, 1, 2, 3, 4
local LENT_US = 2500000 -- how long a loan counts; its holder stops using it half a second earlier (lease_book.py)
local MOST_LOANS = 64 -- of one bucket; each makes its value longer

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
-- %d takes half the time of %.0f, and tells no more than a C `long`, which has 32 bits on small machines.
local whole = format('%d', 2 ^ 52) == '4503599627370496' and '%d' or '%.0f'
local value_format, loan_format = whole .. ' ' .. whole .. ' %s', '|%s ' .. whole .. ' ' .. whole

local function shape_of(text)
  local capacity, per_token, per_tick, tick, full = match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not capacity then
    return nil
  end
  local shape = {
    text = text, capacity = tonumber(capacity), per_token = tonumber(per_token), per_tick = tonumber(per_tick),
    tick = tonumber(tick), full = tonumber(full), this_tick = 0, next_tick = 0,
  }
  if min(shape.per_token, shape.per_tick, shape.tick) <= 0 then
    return nil
  end
  shape.this_tick, shape.next_tick = floor(now / shape.tick), ceil(now / shape.tick)
  return shape
end

-- Buckets that this call has looked at. `bucket.shape` is nil where the bucket is absent, `bucket.expiry` the second after
-- which the stored key may go, as far as it is of use.
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
  -- All fields at once: a table that grows one by one is copied three times. A sum is a number, as `tonumber` has it, sooner.
  bucket = { level = (level or 0) + 0, last = (last or 0) + 0, text = text, shape = nil, changed = false, expiry = nil }
  buckets[key] = bucket
  return bucket
end

local function accrue(shape, level, last)
  local elapsed = shape.this_tick - last
  if elapsed <= 0 then
    if -elapsed <= shape.full then
      return min(level, shape.capacity), last
    end
    return min(level, shape.capacity), shape.next_tick
  end
  level = level + elapsed * shape.per_tick
  if level >= shape.capacity then
    return shape.capacity, shape.next_tick
  end
  return level, shape.this_tick
end

local function translate(old, new, level, last)
  local part = fmod(level, old.per_token)
  local tokens = (level - part) / old.per_token
  local part_units = max(0, floor(part / old.per_token * new.per_token) - 1)
  local anchor = max(last * old.tick, now)
  return min(new.capacity, tokens * new.per_token + part_units), ceil(anchor / new.tick)
end

local function carry_over(old, new, level, last)
  level, last = accrue(old, level, last)
  return translate(old, new, level, last)
end

-- Loans: units that a process has taken out and spends by itself (RedisStorage, `lease`). What is lent counts against the
-- capacity, so that bucket and loans together never hold more than it: the window's bound is that of a bucket without
-- loans. A loan that ends unreported counts as spent.

local function lent(loans)
  local units = 0
  for i = 1, #loans do
    units = units + loans[i].units
  end
  return units
end

local function room_of(bucket, shape)
  return bucket.loans and shape.capacity - lent(bucket.loans) or shape.capacity
end

-- Split a value with loans. `bucket.text` is '|' from then on, which no shape's text is.
local function read_loans(bucket)
  if bucket.loans then
    return true
  end
  local text, list = match(bucket.text, '^([^|]+)(|.+)$')
  local shape = text and shape_of(text)
  if not shape then
    return false
  end
  local loans = {}
  for holder, units, ends in string.gmatch(list, '|(%d+) (%d+) (%d+)') do
    -- A loan that seems to last longer was given before the clock stepped back.
    loans[#loans + 1] = { holder = holder, units = tonumber(units), ends = min(tonumber(ends), now + LENT_US) }
    bucket.moved = bucket.moved or tonumber(ends) > now + LENT_US
  end
  bucket.text, bucket.shape, bucket.loans, bucket.expiry = '|', shape, loans, false
  return true
end

local function text_of(loans)
  local text = ''
  for i = 1, #loans do
    text = text .. format(loan_format, loans[i].holder, loans[i].units, loans[i].ends)
  end
  return text
end

-- As `accrue`, in steps: up to the end of each loan there is room for what is not lent. Takes out the loans that have ended.
local function accrue_lent(shape, level, last, loans)
  local room, tick = shape.capacity - lent(loans), shape.this_tick
  while loans[1] and ceil(loans[1].ends / shape.tick) <= tick do
    local ends = ceil(loans[1].ends / shape.tick)
    if ends > last then
      level, last = min(room, level + (ends - last) * shape.per_tick), ends
    end
    room = room + table.remove(loans, 1).units
  end
  local elapsed = tick - last
  if elapsed <= 0 then
    return min(level, room), -elapsed <= shape.full and last or shape.next_tick
  end
  level = level + elapsed * shape.per_tick
  if level >= room then
    return room, shape.next_tick
  end
  return level, tick
end

-- The tick at which a bucket has so many units if nobody asks, loans that end on the way included.
local function reach(shape, level, last, loans, units)
  local room = shape.capacity - lent(loans)
  for i = 1, #loans do
    if units <= room then
      break
    end
    local ends = ceil(loans[i].ends / shape.tick)
    if ends > last then
      level, last = min(room, level + (ends - last) * shape.per_tick), ends
    end
    room = room + loans[i].units
  end
  return last + max(0, ceil((units - level) / shape.per_tick))
end

-- As `look`, for a bucket with loans. What it finds is noted in the bucket, from which later checks of this call go on.
local function look_lent(bucket, shape)
  local old, loans, moved = bucket.shape, bucket.loans, bucket.moved or false
  local level, last = accrue_lent(old, bucket.level, bucket.last, loans)
  if old.text ~= shape.text then
    level, last = translate(old, shape, level, last)
    for i = 1, #loans do
      loans[i].units = min(shape.capacity, ceil(loans[i].units / old.per_token) * shape.per_token)
    end
    level = max(0, min(level, shape.capacity - lent(loans)))
    moved = true
  end
  moved = moved or last < bucket.last
  bucket.level, bucket.last, bucket.shape, bucket.moved = level, last, shape, false
  if #loans == 0 then
    bucket.loans, bucket.text = nil, shape.text
  end
  return level, last, moved
end

-- Settle what a process has of a bucket, after `look`: the refill until now counts all of it as lent. What comes back is in
-- the bucket again, what is kept goes on being lent, the rest was spent. A loan that has ended here is worth nothing any
-- more; what its holder keeps of it all the same is made room for.
-- Returns the level, what is kept, and whether there was a loan.
local function settle(bucket, shape, level, holder, returned, kept)
  local loans, had, others = bucket.loans or {}, nil, 0
  for i = #loans, 1, -1 do
    if loans[i].holder == holder then
      had = table.remove(loans, i).units
    else
      others = others + loans[i].units
    end
  end
  local back = min(returned, had or 0)
  kept = had and min(kept, had - back) or min(kept, shape.capacity - others)
  bucket.loans = loans
  return max(0, min(level + back, shape.capacity - others - kept)), kept, had ~= nil
end

-- Lend what is wanted: whole tokens, at most half of what is left, and never more than half of the capacity to all together.
local function lend(bucket, shape, level, holder, kept, wanted)
  local loans = bucket.loans
  local units = min(wanted, floor(level / 2), floor(shape.capacity / 2) - lent(loans) - kept)
  units = max(0, units - fmod(units, shape.per_token))
  if #loans >= MOST_LOANS then
    units = 0
  end
  if kept + units > 0 then
    loans[#loans + 1] = { holder = holder, units = kept + units, ends = now + LENT_US }
  end
  return level - units, units
end

-- The tick from which a bucket counts on once it is paid from: where the tick at hand would have filled it, the next one.
local function paid_from(shape, room, level, last)
  if shape.tick == 1 or level + shape.per_tick <= room then
    return last
  end
  return max(last, shape.next_tick)
end

-- Returns the level now, the tick from which it counts on, and whether even a denial must write them: where a clock that
-- stepped back, or a changed rule, made the bucket begin anew.
local function look(bucket, shape)
  if bucket.text == shape.text then
    local level, anchor = accrue(shape, bucket.level, bucket.last)
    return level, anchor, anchor < bucket.last
  end
  if bucket.text and find(bucket.text, '|', 1, true) and read_loans(bucket) then
    return look_lent(bucket, shape)
  end
  local old = bucket.text and shape_of(bucket.text)
  if old then
    local level, anchor = carry_over(old, shape, bucket.level, bucket.last)
    return level, anchor, true
  end
  bucket.text = nil
  return shape.capacity, shape.next_tick, false
end

-- The second of the server's clock after which the key may go: until the bucket is full, a tick more for the division's
-- rounding, a second of margin, and up to a whole second.
local function expiry(shape, level, last)
  return ceil((last + (shape.capacity - level) / shape.per_tick + 1) * shape.tick / 1000000) + 1
end

local function put(bucket, shape, level, last)
  if bucket.expiry == nil then -- the first change: what is at hand is still as it is stored
    bucket.expiry = bucket.text == shape.text and expiry(shape, bucket.level, bucket.last)
  end
  bucket.level, bucket.last, bucket.text, bucket.shape, bucket.changed = level, last, shape.text, shape, true
  if bucket.loans then
    bucket.text = '|'
  end
end

local shapes = {}
local at = 2 + argv[2]
for i = 3, at do
  shapes[i - 2] = shape_of(argv[i])
end

-- The microseconds until a level holds; see `Reading` in token_bucket.py. Where loans must end before there is room for
-- a cost, that is as if the level held later.
local function lead(bucket, shape, level, last, cost)
  local late = 0
  if level < cost then
    late = reach(shape, level, last, bucket.loans, cost) - last - ceil((cost - level) / shape.per_tick)
  end
  return (last + late) * shape.tick - now
end

-- LEND: settle what the holder has, pay the cost, and lend what is wanted if it was paid.
local function take_and_borrow(from, n)
  local bucket, shape = bucket_of(argv[from + 1]), shapes[argv[from + 2]]
  local cost, holder, wanted = argv[from + 3], format(whole, argv[from + 4]), argv[from + 7]
  local level, last, moved = look(bucket, shape)
  local onward = paid_from(shape, room_of(bucket, shape), level, last)
  local kept, settled
  level, kept, settled = settle(bucket, shape, level, holder, argv[from + 5], argv[from + 6])
  local paid = level >= cost
  local units
  level, units = lend(bucket, shape, paid and level - cost or level, holder, kept, paid and wanted or 0)
  if #bucket.loans == 0 then
    bucket.loans = nil
  end
  if moved or settled or kept + units > 0 or paid and cost > 0 then
    last = onward
    put(bucket, shape, level, last)
  end
  reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4] = paid and 1 or 0, level, last * shape.tick - now, units
  if bucket.loans and not paid then
    reply[n + 3] = lead(bucket, shape, level, last, cost)
  end
end

-- The demands of the check at hand; kept between checks, because a table for each would cost as much as the arithmetic.
local bucket_at, shape_at, cost_at, level_at, anchor_at, moved_at = {}, {}, {}, {}, {}, {}

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
      local bucket, shape = bucket_of(argv[at + 1]), shapes[argv[at + 2]]
      local cost = argv[at + 3]
      local level, anchor, moved = look(bucket, shape)
      at = at + 3
      if verb == TAKE and level < cost then
        paid = 0
      end
      bucket_at[i], shape_at[i], cost_at[i] = bucket, shape, cost
      level_at[i], anchor_at[i], moved_at[i] = level, anchor, moved
    end
    n = n + 1
    reply[n] = paid
    for i = 1, count do
      local bucket, shape, level, anchor = bucket_at[i], shape_at[i], level_at[i], anchor_at[i]
      if verb == TAKE then
        if paid == 1 then
          if shape.tick ~= 1 then
            anchor = paid_from(shape, room_of(bucket, shape), level, anchor)
          end
          level = level - cost_at[i]
          put(bucket, shape, level, anchor)
        elseif moved_at[i] then
          put(bucket, shape, level, anchor)
        end
      elseif verb == REFUND then
        if bucket.text then
          level = min(room_of(bucket, shape), level + cost_at[i])
          put(bucket, shape, level, anchor)
        end
      elseif verb == RESET then
        level, anchor = room_of(bucket, shape), shape.next_tick
        if bucket.loans then
          put(bucket, shape, level, anchor)
        else
          bucket.text, bucket.shape, bucket.changed = nil, nil, true
        end
      end
      reply[n + 1], reply[n + 2] = level, anchor * shape.tick - now
      if bucket.loans and verb == TAKE then
        reply[n + 2] = lead(bucket, shape, level, anchor, cost_at[i])
      end
      n = n + 2
    end
  end
end

for key, bucket in pairs(buckets) do
  if bucket.changed then
    local shape = bucket.shape
    if shape then
      local level, last, loans = bucket.level, bucket.last, bucket.loans
      local value = format(value_format, level, last, shape.text)
      local second
      if loans then
        second = expiry(shape, shape.capacity, reach(shape, level, last, loans, shape.capacity))
        value = value .. text_of(loans)
      else
        second = expiry(shape, level, last)
      end
      if second == bucket.expiry then
        -- A new expiry takes as long as the write itself. What an earlier release wrote expires a second after it was full,
        -- which is not before this bucket is: the two are full in the same second.
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
