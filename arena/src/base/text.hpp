// Sizes for people: "1.50 GiB", the units that NumPy's MemoryError prints.
#pragma once

#include <cstdint>
#include <string>

namespace ndarena::base {

std::string human_size(std::uint64_t bytes);

}  // namespace ndarena::base
