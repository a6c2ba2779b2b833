#include "base/base.hpp"

#include <array>
#include <cstdio>

namespace ndarena::base {

std::string human_size(std::uint64_t bytes) {
    static constexpr std::array<const char*, 7> units = {"bytes", "KiB", "MiB", "GiB",
                                                         "TiB",   "PiB", "EiB"};
    if (bytes < 1024) {
        return std::to_string(bytes) + " bytes";
    }
    auto value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024.0 && unit + 1 < units.size()) {
        value /= 1024.0;
        ++unit;
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.2f %s", value, units[unit]);
    return text.data();
}

}  // namespace ndarena::base
