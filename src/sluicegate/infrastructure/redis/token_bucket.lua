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
-- Each claim on it follows: a loan as `|lease_id units end`, another one as `|number units end cost kind microseconds`: first
-- those that have ended, then the others in the order of their ends. `domain/claims/claims.py` says what claims are.
-- A value that is not a bucket counts as an absent one: full, and replaced by the first check that is paid.
-- Numbers are doubles here, and all of them stay below 2^53. They are written with %d, because Lua's own conversion keeps only
-- 14 digits.
local TAKE, PEEK, REFUND, RESET, LEND, RESERVE, SETTLE, EXTEND = 0, 1, 2, 3, 4, 5, 6, 7
local CHARGE, RELEASE, HOLD, ENDED, LOAN = 1, 2, 3, 4, 5 -- the kinds of claims, as in `domain/claims/claim.py`
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
local value_format, loan_format = whole .. ' ' .. whole .. ' %s', '|%s ' .. whole .. ' ' .. whole
local claim_format = loan_format .. ' ' .. whole .. ' ' .. whole .. ' ' .. whole

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
    level, last, text = match(value, '^(%-?%d+) (%d+) (.+)$')
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
-- `active` are those that have not ended, the one that ends first comes first; `ended` are kept for late settlements. `hard`
-- are the units that loans and holds keep whatever happens, `soft` those that may come back of reservations.

local function new_claims()
  return { active = {}, ended = {}, hard = 0, soft = 0 }
end

local function is_hard(claim)
  return claim.kind == LOAN or claim.kind == HOLD
end

local function sum_up(claims, claim, sign)
  if is_hard(claim) then
    claims.hard = claims.hard + sign * claim.units
  else
    claims.soft = claims.soft + sign * claim.units
  end
end

local function insert(claims, claim)
  local active = claims.active
  local at = #active + 1
  while at > 1 and active[at - 1].ends > claim.ends do
    at = at - 1
  end
  table.insert(active, at, claim)
  sum_up(claims, claim, 1)
end

local function room_of(claims, spec)
  return claims and max(0, spec.capacity - claims.hard) or spec.capacity
end

-- Remove a claim and return it; nil if there is none.
local function remove(claims, number, loan)
  for at = 1, #claims.active do
    local claim = claims.active[at]
    if claim.number == number and (claim.kind == LOAN) == loan then
      sum_up(claims, claim, -1)
      return table.remove(claims.active, at)
    end
  end
  for at = 1, #claims.ended do
    if claims.ended[at].number == number and not loan then
      return table.remove(claims.ended, at)
    end
  end
  return nil
end

-- Parse a value with claims. `bucket.text` is '|' from then on, which is the text of no spec.
local function read_claims(bucket)
  if bucket.claims then
    return true
  end
  local text, list = match(bucket.text, '^([^|]+)(|.+)$')
  local spec = text and parse_spec(text)
  if not spec then
    return false
  end
  local claims = new_claims()
  for number, units, ends, cost, kind, ttl in string.gmatch(list, '|(%d+) (%d+) (%d+) ?(%d*) ?(%d*) ?(%d*)') do
    local loan = kind == ''
    local claim = {
      number = number, units = units + 0, ends = ends + 0, cost = loan and 0 or cost + 0, kind = loan and LOAN or kind + 0,
      ttl = loan and LENT_US or ttl + 0,
    }
    if claim.kind == ENDED then
      claims.ended[#claims.ended + 1] = claim
    else
      -- A claim that seems to last longer was given before the clock stepped back.
      bucket.moved = bucket.moved or claim.ends > now + claim.ttl
      claim.ends = min(claim.ends, now + claim.ttl)
      insert(claims, claim)
    end
  end
  bucket.text, bucket.spec, bucket.claims, bucket.expiry = '|', spec, claims, false
  return true
end

local function text_of(claims)
  local parts = {}
  for _, list in ipairs({ claims.ended, claims.active }) do
    for i = 1, #list do
      local claim = list[i]
      if claim.kind == LOAN then
        parts[#parts + 1] = format(loan_format, claim.number, claim.units, claim.ends)
      else
        parts[#parts + 1] =
          format(claim_format, claim.number, claim.units, claim.ends, claim.cost, claim.kind, claim.ttl)
      end
    end
  end
  return table.concat(parts)
end

-- Let soft claims give way to a level: the one that ends first before the others.
local function shrink(claims, spec, level)
  local over = level + claims.hard + claims.soft - spec.capacity
  local at = 1
  while over > 0 and claims.active[at] do
    local claim = claims.active[at]
    if not is_hard(claim) then
      local by = min(over, claim.units)
      claim.units, claims.soft, over = claim.units - by, claims.soft - by, over - by
    end
    at = at + 1
  end
end

-- Let the first active claim end, and return what comes back.
local function let_end(claims)
  local claim = table.remove(claims.active, 1)
  sum_up(claims, claim, -1)
  local back = (claim.kind == RELEASE or claim.kind == HOLD) and claim.units or 0
  if not is_hard(claim) then
    claim.kind, claim.units = ENDED, back
    claims.ended[#claims.ended + 1] = claim
  end
  return back
end

-- Do what `refill` does for a bucket with claims, end by end.
local function advance(spec, level, last, claims)
  local active, ended, tick = claims.active, claims.ended, spec.this_tick
  while active[1] and ceil(active[1].ends / spec.tick) <= tick do
    local ends = ceil(active[1].ends / spec.tick)
    if ends > last then
      level, last = min(room_of(claims, spec), level + (ends - last) * spec.per_tick), ends
    end
    shrink(claims, spec, level)
    local back = let_end(claims)
    level = min(level + back, max(level, room_of(claims, spec)))
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
  while ended[1] and ended[1].ends + KEPT_US <= now do
    table.remove(ended, 1)
  end
  return level, last
end

-- Return the tick at which a bucket will have so many units if no call takes from it; claims that end until then help.
local function reaches(spec, level, last, claims, units)
  local room, hard, soft, later = room_of(claims, spec), claims.hard, claims.soft, claims.soft
  for i = 1, #claims.active do
    local claim = claims.active[i]
    local ends = ceil(claim.ends / spec.tick)
    if units <= room and last + max(0, ceil((units - level) / spec.per_tick)) <= ends then
      break
    end
    if ends > last then
      level, last = min(room, level + (ends - last) * spec.per_tick), ends
    end
    soft = min(soft, room - level)
    if is_hard(claim) then
      hard = hard - claim.units
      room = max(0, spec.capacity - hard)
      if claim.kind == HOLD then
        level = min(level + claim.units, max(level, room))
      end
    else
      later = later - claim.units
      local back = max(0, soft - later)
      soft = soft - back
      if claim.kind == RELEASE then
        level = level + back
      end
    end
  end
  return last + max(0, ceil((units - level) / spec.per_tick))
end

local function convert_claims(old, new, claims)
  local most = (MAX_UNITS - fmod(MAX_UNITS, new.per_token)) / new.per_token
  claims.hard, claims.soft = 0, 0
  for _, list in ipairs({ claims.active, claims.ended }) do
    for i = 1, #list do
      local claim = list[i]
      local part = fmod(claim.units, old.per_token)
      local tokens = (claim.units - part) / old.per_token
      if is_hard(claim) and part > 0 then -- what is kept is rounded up, what may come back is rounded down
        tokens = tokens + 1
      end
      claim.units = min(new.capacity, tokens * new.per_token)
      tokens = (claim.cost - fmod(claim.cost, old.per_token)) / old.per_token
      claim.cost = tokens > most and MAX_UNITS or tokens * new.per_token
      if claim.kind ~= ENDED then
        sum_up(claims, claim, 1)
      end
    end
  end
end

local function is_empty(claims)
  return #claims.active == 0 and #claims.ended == 0
end

-- Do what `look` does for a bucket with claims. The result is kept in the bucket, for later checks of this call.
local function look_claimed(bucket, spec)
  local old, claims, moved = bucket.spec, bucket.claims, bucket.moved or false
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
  local loan = remove(claims, lease_id, true)
  local had, room = loan and loan.units, room_of(claims, spec)
  local back = min(returned, had or 0)
  kept = had and min(kept, had - back) or min(kept, room)
  level = min(level + back, max(0, room - kept))
  return level, kept, had ~= nil
end

-- Lend what is wanted: whole tokens, at most half of what is left, and to all processes together at most half of the capacity.
local function lend(bucket, spec, level, lease_id, kept, wanted)
  local claims, loans = bucket.claims, 0
  for i = 1, #claims.active do
    loans = loans + (claims.active[i].kind == LOAN and 1 or 0)
  end
  local units = min(wanted, floor(level / 2), floor(spec.capacity / 2) - claims.hard - kept)
  units = max(0, units - fmod(units, spec.per_token))
  if loans >= MAX_LOANS then
    units = 0
  end
  if kept + units > 0 then
    insert(claims, {
      number = lease_id, units = kept + units, ends = now + LENT_US, cost = 0, kind = LOAN, ttl = LENT_US,
    })
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
  if bucket.text and find(bucket.text, '|', 1, true) and read_claims(bucket) then
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
  if bucket.text and find(bucket.text, '|', 1, true) and read_claims(bucket) then
    local copy = {}
    for name, value in pairs(bucket) do
      copy[name] = value
    end
    copy.claims = new_claims()
    copy.claims.hard, copy.claims.soft = bucket.claims.hard, bucket.claims.soft
    for _, list in ipairs({ 'active', 'ended' }) do
      for i, claim in ipairs(bucket.claims[list]) do
        local own = {}
        for name, value in pairs(claim) do
          own[name] = value
        end
        copy.claims[list][i] = own
      end
    end
    bucket = copy
  end
  return look(bucket, spec)
end

-- Return whether there is a claim of this number, for SETTLE also one that has ended.
local function has_claim(bucket, number, active_only)
  if not (bucket.text and find(bucket.text, '|', 1, true) and read_claims(bucket)) then
    return false
  end
  for _, claim in ipairs(bucket.claims.active) do
    if claim.number == number and claim.kind ~= LOAN then
      return not active_only or ceil(claim.ends / bucket.spec.tick) > bucket.spec.this_tick
    end
  end
  for _, claim in ipairs(bucket.claims.ended) do
    if claim.number == number then
      return not active_only
    end
  end
  return false
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
  for i = 1, bucket.claims and #bucket.claims.active or 0 do
    if bucket.claims.active[i].kind ~= LOAN then
      return true
    end
  end
  return false
end

-- LEND: settle the loan, pay the cost, and lend what is wanted if it was paid.
local function take_and_borrow(from, n)
  local bucket, spec = bucket_of(argv[from + 1]), specs[argv[from + 2]]
  local cost, lease_id, wanted = argv[from + 3], format(whole, argv[from + 4]), argv[from + 7]
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
  if not has_claim(bucket, number, false) then
    local level, last = look_only(bucket, spec)
    return level, last, 0, 0, 0
  end
  local level, last = look(bucket, spec)
  local claim = bucket.claims and remove(bucket.claims, number, false)
  if not claim then -- it was to be forgotten
    put(bucket, spec, level, last)
    return level, last, 0, 0, 0
  end
  local charged, back, found = claim.cost, 0, 1
  if cost < 0 then
    cost = charged
  end
  if claim.kind == ENDED then
    found, charged = 2, charged - claim.units
  else
    if claim.kind == HOLD then
      cost = 0
    end
    if cost < charged then
      back, charged = min(charged - cost, claim.units), cost
    end
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
  if not has_claim(bucket, number, true) then
    return 0
  end
  local level, last = look(bucket, spec)
  for _, claim in ipairs(bucket.claims.active) do
    if claim.number == number and claim.kind ~= LOAN then
      if now + ttl > claim.ends then
        remove(bucket.claims, number, false)
        claim.ends, claim.ttl = now + ttl, ttl
        insert(bucket.claims, claim)
      end
      break
    end
  end
  put(bucket, spec, level, last)
  return 1
end

-- Fill a bucket beside its loans, end its holds, and let nothing come back of its reservations.
local function reset_claims(claims)
  for i = #claims.active, 1, -1 do
    local claim = claims.active[i]
    if claim.kind == HOLD then
      claims.hard = claims.hard - claim.units
      table.remove(claims.active, i)
    elseif claim.kind ~= LOAN then
      claim.units = 0
    end
  end
  claims.soft = 0
end

local function claims_on(bucket)
  return bucket.claims and #bucket.claims.active + #bucket.claims.ended or 0
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
    local number = format(whole, argv[beyond + 1])
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
    local number, extended = format(whole, argv[beyond + 1]), 0
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
    local number = verb == RESERVE and format(whole, argv[beyond + 1])
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
            insert(bucket.claims, {
              number = number, units = cost_at[i], ends = now + ttl, cost = cost_at[i], kind = kind, ttl = ttl,
            })
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
      local value = format(value_format, level, last, spec.text)
      local second
      if claims then
        second = expiry(spec, spec.capacity, reaches(spec, level, last, claims, spec.capacity))
        for _, list in ipairs({ claims.active, claims.ended }) do
          for i = 1, #list do
            if not is_hard(list[i]) then
              second = max(second, ceil((list[i].ends + KEPT_US) / 1000000) + 1)
            end
          end
        end
        value = value .. text_of(claims)
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
