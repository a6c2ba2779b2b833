// Gives stored inputs to a fuzz target: what an ordinary compiler builds, so
// that corpus and regressions are tests everywhere. A file whose name ends in
// .hex has one input a line, and comments; any other file is one input.
#include "input.hpp"

#include <fstream>
#include <iterator>
#include <vector>

namespace {

bool is_list(const std::string& path) {
    return path.size() > 4 && path.compare(path.size() - 4, 4, ".hex") == 0;
}

std::string decode(const std::string& line) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < line.size(); i += 2) {
        bytes += static_cast<char>(std::stoul(line.substr(i, 2), nullptr, 16));
    }
    return bytes;
}

std::vector<std::string> inputs_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!is_list(path)) {
        return {std::string(std::istreambuf_iterator<char>(in), {})};
    }
    std::vector<std::string> inputs;
    for (std::string line; std::getline(in, line);) {
        if (!line.empty() && line[0] != '#') {
            inputs.push_back(decode(line));
        }
    }
    return inputs;
}

}  // namespace

int main(int argc, char** argv) {
    int count = 0;
    for (int i = 1; i < argc; ++i) {
        for (const std::string& bytes : inputs_of(argv[i])) {
            // The last line names the one that does not return.
            std::printf("%s: input %d, %zu bytes\n", argv[i], ++count, bytes.size());
            std::fflush(stdout);
            (void)LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                         bytes.size());
        }
    }
    return count == 0 ? 1 : 0;
}
