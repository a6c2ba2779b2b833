// A recorded allocation trace as a list of steps to replay.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ndarena::bench {

// One request or one release. Blocks are numbered by live slot, so that the
// replay's own table of pointers stays as small as the program's peak.
struct step {
    std::uint64_t size;  // 0: release
    std::uint32_t slot;
    std::uint32_t reserved;
};

struct trace {
    std::vector<step> steps;
    std::vector<std::uint64_t> left;  // sizes of the blocks still live at the end, by slot; 0: none
    std::uint64_t peak_bytes = 0;     // most bytes asked for that were live at once
    std::uint32_t slots = 0;          // most blocks that were live at once
};

// Reads an uncompressed NDTRACE1 file. A realloc becomes a request and a
// release. Blocks that never reach `min_size` are left out; others join at
// their first request that large. Returns what is wrong, or nothing.
std::string read_trace(const std::string& path, std::uint64_t min_size, std::uint64_t max_records,
                       trace& out);

}  // namespace ndarena::bench
