-- The arithmetic of domain/token_bucket.py, inside Redis: many checks in one call, each of them all or nothing.
--
-- KEYS     the buckets, each once; none at all: a probe, which only echoes
-- ARGV     echo, number of shapes, the shapes, and then for each check:
--          verb, number of demands, and for each demand: key number, shape number, cost in units
-- replies  {echo, and for each check: 1 if it was paid (0 if not), and for each demand: level, lead in microseconds}
--
-- A bucket is one string, `level last shape`, a shape `capacity units_per_token units_per_tick tick_us full_ticks`.
-- A value that is no bucket counts as an absent one: full, and replaced by the first check that is paid.
-- Numbers are doubles here and all of them stay below 2^53; what is written goes through %.0f, because Lua's own
-- conversion keeps 14 digits.
local TAKE, PEEK, REFUND = 0, 1, 2 -- and 3, reset

local reply = { tonumber(ARGV[1]) }
if #KEYS == 0 then
  return reply
end

local floor, ceil, fmod, min, max = math.floor, math.ceil, math.fmod, math.min, math.max
local match, format = string.match, string.format
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local values = redis.call('MGET', unpack(KEYS)) -- a key of another type reads as absent, as MGET has it

local function shape_of(text)
  local capacity, per_token, per_tick, tick, full = text:match('^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not capacity then
    return nil
  end
  local shape = {
    text = text, capacity = tonumber(capacity), per_token = tonumber(per_token),
    per_tick = tonumber(per_tick), tick = tonumber(tick), full = tonumber(full),
  }
  return min(shape.per_token, shape.per_tick, shape.tick) > 0 and shape or nil
end

-- Buckets that this call has looked at. `bucket.shape` is nil where the bucket is absent.
local buckets = {}

local function bucket_of(key)
  local bucket = buckets[key]
  if bucket then
    return bucket
  end
  local value = values[key]
  local level, last, text
  if value then
    level, last, text = match(value, '^(%d+) (%d+) (.+)$')
  end
  -- All fields at once: a table that grows one by one is copied three times.
  bucket = { level = tonumber(level or 0), last = tonumber(last or 0), text = text, shape = nil, changed = false }
  buckets[key] = bucket
  return bucket
end

local function accrue(shape, level, last)
  local elapsed = floor(now / shape.tick) - last
  if elapsed <= 0 then
    if -elapsed <= shape.full then
      return min(level, shape.capacity), last
    end
    return min(level, shape.capacity), ceil(now / shape.tick)
  end
  level = level + elapsed * shape.per_tick
  if level >= shape.capacity then
    return shape.capacity, ceil(now / shape.tick)
  end
  return level, last + elapsed
end

local function carry_over(old, new, level, last)
  level, last = accrue(old, level, last)
  local part = fmod(level, old.per_token)
  local tokens = (level - part) / old.per_token
  local part_units = max(0, floor(part / old.per_token * new.per_token) - 1)
  local anchor = max(last * old.tick, now)
  return min(new.capacity, tokens * new.per_token + part_units), ceil(anchor / new.tick)
end

-- Returns the level now, the tick from which it counts on, and whether even a denial must write them: where a clock that
-- stepped back, or a changed rule, made the bucket begin anew.
local function look(bucket, shape)
  if bucket.text == shape.text then
    local level, anchor = accrue(shape, bucket.level, bucket.last)
    return level, anchor, anchor < bucket.last
  end
  local old = bucket.text and shape_of(bucket.text)
  if old then
    local level, anchor = carry_over(old, shape, bucket.level, bucket.last)
    return level, anchor, true
  end
  bucket.text = nil
  return shape.capacity, ceil(now / shape.tick), false
end

local function put(bucket, shape, level, last)
  bucket.level, bucket.last, bucket.text, bucket.shape, bucket.changed = level, last, shape.text, shape, true
end

local shapes = {}
local at = 2 + tonumber(ARGV[2])
for i = 3, at do
  shapes[i - 2] = shape_of(ARGV[i])
end

-- The demands of the check at hand; kept between checks, because a table for each would cost as much as the arithmetic.
local bucket_at, shape_at, cost_at, level_at, anchor_at, moved_at = {}, {}, {}, {}, {}, {}

local argc, n = #ARGV, 1
while at < argc do
  local verb, count = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local paid = 1
  at = at + 2
  for i = 1, count do
    local bucket, shape = bucket_of(tonumber(ARGV[at + 1])), shapes[tonumber(ARGV[at + 2])]
    local cost = tonumber(ARGV[at + 3])
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
        level = level - cost_at[i]
        put(bucket, shape, level, anchor)
      elseif moved_at[i] then
        put(bucket, shape, level, anchor)
      end
    elseif verb == REFUND then
      if bucket.text then
        level = min(shape.capacity, level + cost_at[i])
        put(bucket, shape, level, anchor)
      end
    elseif verb ~= PEEK then
      bucket.text, bucket.shape, bucket.changed = nil, nil, true
      level, anchor = shape.capacity, ceil(now / shape.tick)
    end
    reply[n + 1], reply[n + 2] = level, anchor * shape.tick - now
    n = n + 2
  end
end

for key, bucket in pairs(buckets) do
  if bucket.changed then
    local shape = bucket.shape
    if shape then
      -- Until the bucket is full, a tick more for the division's rounding, and a second of margin.
      local full_us = (bucket.last + (shape.capacity - bucket.level) / shape.per_tick + 1) * shape.tick
      local value = format('%.0f %.0f %s', bucket.level, bucket.last, shape.text)
      redis.call('SET', KEYS[key], value, 'PX', format('%.0f', ceil((full_us - now) / 1000) + 1000))
    elseif values[key] then
      redis.call('DEL', KEYS[key])
    end
  end
end
return reply
