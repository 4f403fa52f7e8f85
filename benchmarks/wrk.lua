-- Sends the requests in the file that WRK_REQUESTS names, in turn, and prints what was measured as one line of JSON.
-- In the file, a line with a request's length in bytes comes before the request as it goes over the wire.

local requests, turn = {}, 0

function init()
   local file = assert(io.open(os.getenv("WRK_REQUESTS"), "rb"))
   for length in function() return file:read("*l") end do
      requests[#requests + 1] = file:read(tonumber(length))
   end
   file:close()
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency)
   local pairs_of = {}
   for index = 1, #latency do
      local value, count = latency(index)
      pairs_of[index] = string.format("[%d,%d]", value, count)
   end
   local e = summary.errors
   io.write(string.format(
      'wrk-result {"requests":%d,"duration_us":%d,"status":%d,"socket":%d,"timeout":%d,"latency_us":[%s]}\n',
      summary.requests, summary.duration, e.status, e.connect + e.read + e.write, e.timeout,
      table.concat(pairs_of, ",")
   ))
end
