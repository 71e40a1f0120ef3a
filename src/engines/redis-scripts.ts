/**
 * What is done at Redis in one step. Each script is cut from the same beginning, so that time, epoch and expiry mean one thing.
 * An entry's id in the stream is its offset and the server's time in ms.
 */
const PREAMBLE = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end

-- Where the channel stands. What another run of the server had may lack its end: then the epoch is another.
local function top(meta, stream, run, epoch)
  local at = redis.call('HMGET', meta, 'epoch', 'offset', 'run')
  if at[1] and at[3] == run then return at[1], tonumber(at[2]) end
  redis.call('DEL', meta, stream)
  redis.call('HSET', meta, 'epoch', epoch, 'offset', '0', 'run', run)
  return epoch, 0
end

local function expire(stream, ttl)
  while true do
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not first or tonumber(string.match(first[1], '-(%d+)$')) > now - ttl then return end
    redis.call('XDEL', stream, first[1])
  end
end
`;

/** KEYS: meta, stream. ARGV: run, epoch, size, ttl, slack, subject, envelope. */
export const PUBLISH: string = `${PREAMBLE}
local epoch, offset = top(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
offset = offset + 1
redis.call('HSET', KEYS[1], 'offset', text(offset))
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], text(offset) .. '-' .. text(now), 'e', ARGV[7])
expire(KEYS[2], tonumber(ARGV[4]))
redis.call('PEXPIRE', KEYS[1], text(ARGV[4] + ARGV[5]))
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PUBLISH', ARGV[6], epoch .. '\\n' .. text(offset) .. '\\n' .. ARGV[7])
return { epoch, text(offset) }`;

/** KEYS: meta, stream. ARGV: run, epoch, size, ttl, slack, the position's epoch or nothing, its offset, limit. */
export const READ: string = `${PREAMBLE}
local epoch, offset = top(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], text(math.max(redis.call('PTTL', KEYS[1]), ARGV[4] + ARGV[5])))
expire(KEYS[2], tonumber(ARGV[4]))
local kept = math.min(redis.call('XLEN', KEYS[2]), tonumber(ARGV[3]), tonumber(ARGV[8]))
local count = kept
if ARGV[6] ~= '' then
  count = offset - ARGV[7]
  if ARGV[6] ~= epoch or count < 0 or count > kept then return { epoch, text(offset), 0, {} } end
end
local entries = count > 0 and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', text(count)) or {}
return { epoch, text(offset), 1, entries }`;

/** KEYS: metas. ARGV: run, then for each how long it is kept. */
export const TOPS: string = `
local tops = {}
for number, key in ipairs(KEYS) do
  local at = redis.call('HMGET', key, 'epoch', 'offset', 'run')
  local isGood = at[1] and at[3] == ARGV[1]
  if isGood then redis.call('PEXPIRE', key, ARGV[number + 1]) end
  tops[number] = isGood and { at[1], at[2] } or {}
end
return tops`;

/** KEYS: nodes. ARGV: node, lease, prefix, subject, text. Sweeps after nodes that are dead: a part at a time, for Redis does nothing else meanwhile. */
export const BEAT: string = `${PREAMBLE}
local expiry = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], text(now + ARGV[2]), ARGV[1])
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now))) do
  local channels = redis.call('SPOP', ARGV[3] .. 'c:' .. node, 500)
  for _, channel in ipairs(channels) do
    redis.call('DEL', ARGV[3] .. 'm:' .. node .. ':' .. channel)
    redis.call('SREM', ARGV[3] .. 'w:' .. channel, node)
  end
  if #channels < 500 then redis.call('ZREM', KEYS[1], node) end
end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return expiry and tonumber(expiry) > now and 1 or 0`;

/** KEYS: nodes. */
export const NODES: string = `${PREAMBLE}
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf')`;

/** KEYS: members of the node, channels of the node, nodes of the channel. ARGV: user, envelope, channel, node, subject, how long all is kept at most. */
export const JOIN: string = `
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('SADD', KEYS[3], ARGV[4])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[6]) end
redis.call('PUBLISH', ARGV[5], 'member\\n' .. ARGV[2])
return 1`;

/** KEYS and ARGV as for {@link JOIN}. */
export const LEAVE: string = `
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[3])
  redis.call('SREM', KEYS[3], ARGV[4])
end
redis.call('PUBLISH', ARGV[5], 'member\\n' .. ARGV[2])
return 1`;

/** KEYS: nodes of the channel, nodes. ARGV: prefix, channel. */
export const MEMBERS: string = `${PREAMBLE}
local all = {}
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local expiry = redis.call('ZSCORE', KEYS[2], node)
  if expiry and tonumber(expiry) > now then
    for _, envelope in ipairs(redis.call('HVALS', ARGV[1] .. 'm:' .. node .. ':' .. ARGV[2])) do all[#all + 1] = envelope end
  end
end
return all`;
