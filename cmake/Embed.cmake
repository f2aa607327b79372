# Writes the device headers into a C++ source as text. Run as a script (cmake -P):
#   -D ROOT=<kernels> -D OUTPUT=<file.cpp> -D "HEADERS=<paths below ROOT, separated by |>"
cmake_minimum_required(VERSION 3.25)
string(REPLACE "|" ";" headers "${HEADERS}")
list(SORT headers)
set(entries "")
foreach(header IN LISTS headers)
  file(READ ${ROOT}/${header} text)
  string(FIND "${text}" ")attune_text\"" at)
  if(NOT at EQUAL -1)
    message(FATAL_ERROR "${header} contains )attune_text\", which ends the text it is embedded in")
  endif()
  string(APPEND entries "    DeviceHeader{\"${header}\", R\"attune_text(${text})attune_text\"},\n")
endforeach()
file(WRITE ${OUTPUT}.new
  "// Written by cmake/Embed.cmake from kernels/. Do not edit.\n"
  "#include \"source/device_headers.h\"\n\n"
  "#include <array>\n\n"
  "namespace attune {\n\n"
  "namespace {\n\n"
  "constexpr std::array kHeaders = {\n${entries}};\n\n"
  "}  // namespace\n\n"
  "std::span<const DeviceHeader> device_headers() { return kHeaders; }\n\n"
  "}  // namespace attune\n")
file(COPY_FILE ${OUTPUT}.new ${OUTPUT} ONLY_IF_DIFFERENT)
file(REMOVE ${OUTPUT}.new)
