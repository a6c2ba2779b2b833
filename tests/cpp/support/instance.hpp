// What the kernel can tell about the instance of a file.
#pragma once

#include "platform/platform.hpp"

#include <string>

namespace ndarena::test {

// Kernels before 6.8 do not tell mounts apart; then no state outlives the
// processes that know it.
inline bool state_is_lasting(const std::string& path) {
    const auto fd = platform::open_file(path, false, false);
    return fd && platform::instance_of(fd->get()).mount != 0;
}

}  // namespace ndarena::test
