// How many deaths a sweep tries, and what it says of them.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace ndarena::test {

// NDARENA_TEST_KILLS of an operation, twenty by default: this number for what a
// test would do with sixty.
inline int scaled_kills(int usual) {
    const char* text = std::getenv("NDARENA_TEST_KILLS");
    const long asked = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
    return static_cast<int>(usual * (asked > 0 ? asked : 20) / 60);
}

// For the campaign, which adds them up. No boundaries: deaths at random.
inline void count_deaths(long deaths, long boundaries, long instructions = 0) {
    std::printf("[  DEATHS  ] %ld of %ld in %ld\n", deaths, boundaries, instructions);
}

}  // namespace ndarena::test
