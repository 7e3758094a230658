// What the runner wants of a C and a C++ library that are newer than this system's.
#include <cstdlib>
#include <ios>

extern "C" {
long __isoc23_strtol(const char* text, char** end, int base) { return std::strtol(text, end, base); }
long long __isoc23_strtoll(const char* text, char** end, int base) { return std::strtoll(text, end, base); }
unsigned long __isoc23_strtoul(const char* text, char** end, int base) { return std::strtoul(text, end, base); }
unsigned long long __isoc23_strtoull(const char* text, char** end, int base) { return std::strtoull(text, end, base); }
}

namespace std {
// The standard streams; the older library has each of its users make them.
void ios_base_library_init() { static ios_base::Init streams; }
}  // namespace std
