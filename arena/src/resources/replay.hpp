// Plays back what was once asked of some allocator.
#pragma once

#include "resources/resource.hpp"

#include <vector>

namespace ndarena::resources {

struct replay_step {
    std::uint32_t block = 0;   // its number, counted from 0
    std::uint64_t nbytes = 0;  // 0: the block is freed
};

struct replay_result {
    std::uint64_t nanoseconds = 0;
    std::uint64_t n_operations = 0;
    std::uint64_t n_failed = 0;
};

// What is alive at the end is freed without being timed. Contents are not touched.
// Errors: std::bad_alloc.
replay_result replay(resource& on, const std::vector<replay_step>& steps, std::uint32_t n_blocks);

}  // namespace ndarena::resources
