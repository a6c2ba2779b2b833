// Layer 0: what knows neither an operating system nor a file format.
// Includes only the standard library and <ndarena/error.hpp>.
#pragma once

#include "base/annotations.hpp"
#include "base/bits.hpp"
#include "base/crc32c.hpp"
#include "base/planted.hpp"
#include "base/text.hpp"

#include <ndarena/error.hpp>
