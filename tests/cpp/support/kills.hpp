// How many deaths a sweep tries, and what it says of them.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace ndarena::test {

// Sixty of an operation by default. NDARENA_TEST_KILLS asks for another number;
// what a test would do with sixty becomes so much more.
inline int scaled_kills(int usual) {
    const char* asked = std::getenv("NDARENA_TEST_KILLS");
    const long kills = asked == nullptr ? 60 : std::strtol(asked, nullptr, 10);
    return static_cast<int>(usual * (kills > 0 ? kills : 60) / 60);
}

// For the campaign, which adds them up. No boundaries: deaths at random.
inline void count_deaths(int deaths, long boundaries) {
    std::printf("[  DEATHS  ] %d of %ld\n", deaths, boundaries);
}

}  // namespace ndarena::test
