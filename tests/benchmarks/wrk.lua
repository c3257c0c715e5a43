-- Posts pre-generated, signed deliveries, each once, and prints the counts as one line of JSON.
-- wrk … -s wrk.lua URL -- FILE     (FILE: lines of `signature<TAB>body`)

local requests, next_one = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    local signature, body = line:match("^(%x+)\t(.*)$")
    requests[#requests + 1] = wrk.format("POST", nil, {
      ["Host"] = "localhost",
      ["Content-Type"] = "application/json",
      ["X-Dreamship-Signature"] = signature,
    }, body)
  end
end

function request()
  next_one = next_one % #requests + 1
  return requests[next_one]
end

function done(summary, latency, _)
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"not_200":%d,"broken":%d,"p50_ms":%f,"p99_ms":%f,"max_ms":%f}\n',
    summary.requests, summary.duration / 1e6, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
